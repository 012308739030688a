// A CUDA driver whose device is the CPU, for tests: what its parts share.
//
// Device memory is host memory between guard bytes, filled with 0xff. Work on streams is queued, as on a GPU, and run
// when somebody waits for it; EMULATED_CUDA_ORDER says what happens before that:
//
//   late   nothing: work runs when it is waited for and no sooner, so a missing wait reads what is not there yet
//   early  all of it: work runs when it is queued, so memory that is used again too soon is overwritten
//   N      a number above 0: some of it, at random
//
// The signatures are those of NVIDIA's cuda.h, and the compiler holds them against it.
#pragma once

#include <cuda.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace emulated_cuda {

// Part of memory that queued work reads or writes.
struct Range {
  const void* begin;
  std::size_t bytes;
};

struct Stream;
struct Capture;

// Where a stream or event stands in a capture: behind these nodes of its graph.
struct Position {
  std::shared_ptr<Capture> capture;  // null outside of one
  std::vector<std::size_t> after;
};

struct Event {
  Stream* stream = nullptr;     // of the last record
  std::uint64_t recorded = 0;   // how often it was recorded
  std::uint64_t completed = 0;  // how many of these records have been reached
  Position captured;            // of the last record, if that was captured
};

struct Work {
  std::function<void()> run;
  std::vector<Range> touches;
  Event* awaited = nullptr;  // runs only once that event has reached its record number `record`,
  std::uint64_t record = 0;
  Stream* recorded_on = nullptr;  // which is on this stream
};

struct Stream {
  std::deque<Work> queue;
  bool busy = false;  // some thread runs its first work
  bool blocking = true;  // it and the null stream wait for each other
  Position captured;
};

// What was captured: work, and which work has to come before it.
struct Node {
  Work work;
  std::vector<std::size_t> after;
};

using Graph = std::vector<Node>;

struct Capture {
  Stream* origin;
  std::thread::id thread;
  CUstreamCaptureMode mode;
  Graph graph;
  bool is_invalid = false;
  bool has_ended = false;
};

struct Allocation {
  std::unique_ptr<unsigned char[]> memory;  // guard, content, guard
  std::size_t bytes = 0;
  unsigned flags = 0;
};

struct State {
  std::mutex mutex;  // never held while work runs: it may need Python's own lock
  std::condition_variable changed;
  std::map<std::uintptr_t, Allocation> device_memory, host_memory;  // by the address of the content
  std::set<Stream*> streams;
  std::set<Event*> events;
  Stream null_stream;
  std::vector<std::shared_ptr<Capture>> captures;  // that have not ended
  std::map<CUgraph, std::shared_ptr<const Graph>> graphs;
  std::map<CUgraphExec, std::shared_ptr<const Graph>> graph_execs;
  int modules = 0;
  int primary_retains = 0;
  bool initialised = false;

  // What `emulated_cuda_fail` asked for.
  std::string fail_name;
  long fail_after = 0;
  int fail_code = 0;
  bool fail_for_good = false;
  int lost = 0;  // the code that every call returns from now on

  long calls = 0;
  long copies = 0;
  long pageable_copies = 0;
  long launches = 0;
  long graph_launches = 0;
  std::vector<std::string> faults;
};

State& state();
int& context_depth();  // of this thread

// What comes first in every call: 0, or the error that it has to return. `needs_context` is for those that work in the
// current context; a `cleanup` fails only when the device is lost, for nobody could do anything about it.
int entered(const char* name, bool needs_context, bool cleanup = false);

// Adds a line to the report: something that a GPU need not notice, and that is wrong all the same.
void fault(const std::string& text);

bool covers(const std::map<std::uintptr_t, Allocation>& memory, std::uintptr_t address, std::size_t bytes);
bool guards_hold(const Allocation& allocation);
void check_guards(const std::string& after);

Stream* stream_of(CUstream handle);  // null for one that does not exist
bool is_pending(const void* begin, std::size_t bytes);
void enqueue(Stream* stream, Work work);
void drain(Stream* stream);  // runs all that is queued on it, and what that waits for
void drain_all();
void drain_blocking();  // the streams that the null stream waits for

// Rules of capturing. Each returns 0, or the error of a call that breaks them; what breaks them invalidates captures.
int admits_work(Stream* stream);     // may something be put onto this stream
int admits_waiting(Stream* stream);  // may somebody wait for this stream, or ask how far it is
int admits_waiting(Event* event);
int admits_waiting_for_all();        // may somebody wait for the whole device
int admits_null_stream();            // may the null stream be used
int admits_unsafe_call();            // may this thread do what a graph cannot hold, as allocating memory
bool capture_work(Stream* stream, Work& work);  // true if the stream is captured. The caller holds the lock
bool capture_record(Stream* stream, Event* event);
int capture_wait(Stream* stream, Event* event, bool& is_captured);
void abandon_capture(Stream* stream);  // which is being destroyed

}  // namespace emulated_cuda

#define ENTER(name)                                                                     \
  if (const int status = emulated_cuda::entered(name, true)) return static_cast<CUresult>(status)
#define ADMIT(check) \
  if (const int status = emulated_cuda::check) return static_cast<CUresult>(status)
#define ENTER_WITHOUT_CONTEXT(name)                                                     \
  if (const int status = emulated_cuda::entered(name, false)) return static_cast<CUresult>(status)
#define ENTER_CLEANUP(name)                                                             \
  if (const int status = emulated_cuda::entered(name, true, true)) return static_cast<CUresult>(status)

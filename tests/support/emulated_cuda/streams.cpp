// Streams and events: work that waits, and the order in which it runs.
#include <algorithm>
#include <cstdlib>
#include <random>

#include "emulator.h"

namespace emulated_cuda {
namespace {

enum class Order { LATE, EARLY, RANDOM };

unsigned seed() {
  const char* order = std::getenv("EMULATED_CUDA_ORDER");
  return order ? static_cast<unsigned>(std::strtoul(order, nullptr, 10)) : 0;
}

Order order() {
  const char* order = std::getenv("EMULATED_CUDA_ORDER");
  if (order && std::string(order) == "early") return Order::EARLY;
  return seed() ? Order::RANDOM : Order::LATE;
}

// Runs the first work of a stream, whatever it waits for first. The caller holds the lock, which is let go meanwhile.
void run_first(Stream* stream, std::unique_lock<std::mutex>& lock) {
  if (stream->busy) {
    state().changed.wait(lock, [=] { return !stream->busy; });
    return;
  }
  stream->busy = true;
  const Work& work = stream->queue.front();
  while (work.awaited && work.awaited->completed < work.record) run_first(work.recorded_on, lock);
  if (work.run) {
    lock.unlock();
    work.run();
    lock.lock();
  }
  stream->queue.pop_front();
  stream->busy = false;
  state().changed.notify_all();
}

void drain_locked(Stream* stream, std::unique_lock<std::mutex>& lock) {
  while (!stream->queue.empty()) run_first(stream, lock);
}

std::vector<Stream*> waiting() {
  std::vector<Stream*> found;
  for (Stream* stream : state().streams) {
    if (!stream->queue.empty()) found.push_back(stream);
  }
  if (!state().null_stream.queue.empty()) found.push_back(&state().null_stream);
  return found;
}

void run_some(std::unique_lock<std::mutex>& lock) {
  static std::mt19937 random(seed());
  for (unsigned steps = random() % 4; steps > 0; --steps) {
    const std::vector<Stream*> streams = waiting();
    if (streams.empty()) return;
    run_first(streams[random() % streams.size()], lock);
  }
}

}  // namespace

Stream* stream_of(CUstream handle) {
  const std::lock_guard lock(state().mutex);
  auto* stream = reinterpret_cast<Stream*>(handle);
  if (!stream) return &state().null_stream;
  return state().streams.count(stream) ? stream : nullptr;
}

bool is_pending(const void* begin, std::size_t bytes) {
  const auto first = reinterpret_cast<std::uintptr_t>(begin);
  for (const Stream* stream : waiting()) {
    for (const Work& work : stream->queue) {
      for (const Range& range : work.touches) {
        const auto start = reinterpret_cast<std::uintptr_t>(range.begin);
        if (start < first + bytes && first < start + range.bytes) return true;
      }
    }
  }
  return false;
}

void enqueue(Stream* stream, Work work) {
  if (stream == &state().null_stream) drain_blocking();  // it waits for those, and they for it
  std::unique_lock lock(state().mutex);
  if (capture_work(stream, work)) return;
  stream->queue.push_back(std::move(work));
  if (stream == &state().null_stream || order() == Order::EARLY) drain_locked(stream, lock);
  if (order() == Order::RANDOM) run_some(lock);
}

void drain(Stream* stream) {
  std::unique_lock lock(state().mutex);
  drain_locked(stream, lock);
}

void drain_blocking() {
  std::unique_lock lock(state().mutex);
  for (Stream* stream : waiting()) {
    if (stream->blocking) drain_locked(stream, lock);
  }
}

void drain_all() {
  std::unique_lock lock(state().mutex);
  for (std::vector<Stream*> streams = waiting(); !streams.empty(); streams = waiting()) {
    drain_locked(streams.front(), lock);
  }
}

}  // namespace emulated_cuda

using namespace emulated_cuda;

namespace {

Event* event_of(CUevent handle) {
  const std::lock_guard lock(state().mutex);
  auto* event = reinterpret_cast<Event*>(handle);
  return state().events.count(event) ? event : nullptr;
}

}  // namespace

extern "C" {

CUresult cuStreamCreate(CUstream* handle, unsigned flags) {
  ENTER("cuStreamCreate");
  auto* stream = new Stream;
  stream->blocking = !(flags & CU_STREAM_NON_BLOCKING);
  const std::lock_guard lock(state().mutex);
  state().streams.insert(stream);
  *handle = reinterpret_cast<CUstream>(stream);
  return CUDA_SUCCESS;
}

CUresult cuStreamDestroy(CUstream handle) {
  ENTER_CLEANUP("cuStreamDestroy");
  Stream* stream = handle ? stream_of(handle) : nullptr;
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  abandon_capture(stream);
  drain(stream);
  const std::lock_guard lock(state().mutex);
  state().streams.erase(stream);
  for (Event* event : state().events) {
    if (event->stream == stream) event->stream = nullptr;
  }
  delete stream;
  return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream handle) {
  ENTER("cuStreamSynchronize");
  Stream* stream = stream_of(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  ADMIT(admits_waiting(stream));
  drain(stream);
  return CUDA_SUCCESS;
}

CUresult cuStreamQuery(CUstream handle) {
  ENTER("cuStreamQuery");
  Stream* stream = stream_of(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  ADMIT(admits_waiting(stream));
  const std::lock_guard lock(state().mutex);
  return stream->queue.empty() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned) {
  ENTER("cuStreamWaitEvent");
  Stream* stream = stream_of(handle);
  Event* event = event_of(event_handle);
  if (!stream || !event) return CUDA_ERROR_INVALID_HANDLE;
  ADMIT(admits_work(stream));
  bool is_captured = false;
  ADMIT(capture_wait(stream, event, is_captured));
  if (is_captured) return CUDA_SUCCESS;
  Work wait;
  wait.awaited = event;
  {
    const std::lock_guard lock(state().mutex);
    wait.record = event->recorded;
    wait.recorded_on = event->stream;
  }
  enqueue(stream, std::move(wait));
  return CUDA_SUCCESS;
}

CUresult cuLaunchHostFunc(CUstream handle, CUhostFn function, void* data) {
  ENTER("cuLaunchHostFunc");
  Stream* stream = stream_of(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  ADMIT(admits_work(stream));
  enqueue(stream, {[=] { function(data); }});
  return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent* handle, unsigned) {
  ENTER("cuEventCreate");
  auto* event = new Event;
  const std::lock_guard lock(state().mutex);
  state().events.insert(event);
  *handle = reinterpret_cast<CUevent>(event);
  return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent handle) {
  ENTER_CLEANUP("cuEventDestroy");
  Event* event = event_of(handle);
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  const std::lock_guard lock(state().mutex);
  state().events.erase(event);  // it stays in memory, for queued work may record it or wait for it
  return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent handle, CUstream stream_handle) {
  ENTER("cuEventRecord");
  Stream* stream = stream_of(stream_handle);
  Event* event = event_of(handle);
  if (!stream || !event) return CUDA_ERROR_INVALID_HANDLE;
  ADMIT(admits_work(stream));
  if (capture_record(stream, event)) return CUDA_SUCCESS;
  std::uint64_t record = 0;
  {
    const std::lock_guard lock(state().mutex);
    event->stream = stream;
    record = ++event->recorded;
  }
  enqueue(stream, {[=] {
            const std::lock_guard lock(state().mutex);
            event->completed = std::max(event->completed, record);
          }});
  return CUDA_SUCCESS;
}

CUresult cuEventSynchronize(CUevent handle) {
  ENTER("cuEventSynchronize");
  Event* event = event_of(handle);
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  ADMIT(admits_waiting(event));
  std::unique_lock lock(state().mutex);
  const std::uint64_t record = event->recorded;
  Stream* stream = event->stream;
  while (event->completed < record) run_first(stream, lock);
  return CUDA_SUCCESS;
}

CUresult cuEventQuery(CUevent handle) {
  ENTER("cuEventQuery");
  Event* event = event_of(handle);
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  ADMIT(admits_waiting(event));
  const std::lock_guard lock(state().mutex);
  return event->completed == event->recorded ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

}  // extern "C"

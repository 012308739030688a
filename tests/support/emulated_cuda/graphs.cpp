// Capturing what is put onto streams, and replaying it. Calls that a real driver forbids meanwhile are errors here too.
#include <algorithm>
#include <cstdlib>
#include <random>

#include "emulator.h"

namespace emulated_cuda {
namespace {

using Indices = std::vector<std::size_t>;

int invalidated(Capture& capture, int code) {
  capture.is_invalid = true;
  return code;
}

// The work that has to come before the work at one of these places, with it.
std::set<std::size_t> up_to(const Graph& graph, Indices waiting) {
  std::set<std::size_t> found;
  while (!waiting.empty()) {
    const std::size_t index = waiting.back();
    waiting.pop_back();
    if (!found.insert(index).second) continue;
    waiting.insert(waiting.end(), graph[index].after.begin(), graph[index].after.end());
  }
  return found;
}

// An order in which the work may be done: as captured, or as the other way round as its dependencies allow, or any.
Indices schedule(const Graph& graph) {
  const char* order = std::getenv("EMULATED_CUDA_ORDER");
  static std::mt19937 random(order ? static_cast<unsigned>(std::strtoul(order, nullptr, 10)) : 0);
  const bool is_early = order && std::string(order) == "early";
  const bool is_random = order && std::strtoul(order, nullptr, 10) > 0;
  Indices done;
  std::vector<bool> is_done(graph.size());
  while (done.size() < graph.size()) {
    Indices ready;
    for (std::size_t i = 0; i < graph.size(); ++i) {
      const Indices& after = graph[i].after;
      if (!is_done[i] && std::all_of(after.begin(), after.end(), [&](std::size_t j) { return is_done[j]; })) {
        ready.push_back(i);
      }
    }
    const std::size_t next = is_random ? ready[random() % ready.size()] : is_early ? ready.front() : ready.back();
    is_done[next] = true;
    done.push_back(next);
  }
  return done;
}

// Ends it for all streams in it. The caller holds the lock.
void end(const std::shared_ptr<Capture>& capture) {
  capture->has_ended = true;
  auto& all = state().captures;
  all.erase(std::find(all.begin(), all.end(), capture));
  for (Stream* stream : state().streams) {
    if (stream->captured.capture == capture) stream->captured = {};
  }
}

template <typename Handle>
Handle kept(std::map<Handle, std::shared_ptr<const Graph>>& graphs, std::shared_ptr<const Graph> graph) {
  static std::uintptr_t last = 0x1000;
  const auto handle = reinterpret_cast<Handle>(last += 16);
  graphs[handle] = std::move(graph);
  return handle;
}

}  // namespace

int admits_work(Stream* stream) {
  if (stream == &state().null_stream) return admits_null_stream();
  const std::lock_guard lock(state().mutex);
  const auto& capture = stream->captured.capture;
  return capture && capture->is_invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : 0;
}

int admits_waiting(Stream* stream) {
  if (stream == &state().null_stream) return admits_null_stream();
  const std::lock_guard lock(state().mutex);
  const auto& capture = stream->captured.capture;
  return capture ? invalidated(*capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED) : 0;
}

int admits_waiting(Event* event) {
  const std::lock_guard lock(state().mutex);
  const auto& capture = event->captured.capture;
  return capture ? invalidated(*capture, CUDA_ERROR_CAPTURED_EVENT) : 0;
}

int admits_waiting_for_all() {
  const std::lock_guard lock(state().mutex);
  int status = 0;
  for (const auto& capture : state().captures) status = invalidated(*capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  return status;
}

int admits_null_stream() {
  const std::lock_guard lock(state().mutex);
  int status = 0;
  for (const Stream* stream : state().streams) {
    const auto& capture = stream->captured.capture;
    if (stream->blocking && capture) status = invalidated(*capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  }
  return status;
}

int admits_unsafe_call() {
  const std::lock_guard lock(state().mutex);
  int status = 0;
  for (const auto& capture : state().captures) {
    const bool is_own = capture->thread == std::this_thread::get_id();
    const bool is_forbidden = capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL ||
                              (capture->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && is_own);
    if (is_forbidden) status = invalidated(*capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  return status;
}

bool capture_work(Stream* stream, Work& work) {
  auto& [capture, after] = stream->captured;
  if (!capture) return false;
  capture->graph.push_back({std::move(work), std::move(after)});
  after = {capture->graph.size() - 1};
  return true;
}

bool capture_record(Stream* stream, Event* event) {
  const std::lock_guard lock(state().mutex);
  event->captured = stream->captured;
  return event->captured.capture != nullptr;
}

int capture_wait(Stream* stream, Event* event, bool& is_captured) {
  const std::lock_guard lock(state().mutex);
  Position& here = stream->captured;
  const Position& there = event->captured;
  is_captured = here.capture || there.capture;
  if (!there.capture) {
    const bool is_outside = here.capture && event->recorded > 0;
    return is_outside ? invalidated(*here.capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION) : 0;
  }
  if (there.capture->has_ended) return CUDA_ERROR_INVALID_VALUE;
  if (here.capture && here.capture != there.capture) {
    invalidated(*here.capture, 0);
    return invalidated(*there.capture, CUDA_ERROR_STREAM_CAPTURE_MERGE);
  }
  here.capture = there.capture;  // a stream that waits for captured work is captured from then on
  here.after.insert(here.after.end(), there.after.begin(), there.after.end());
  return 0;
}

void abandon_capture(Stream* stream) {
  const std::lock_guard lock(state().mutex);
  const auto capture = stream->captured.capture;
  if (!capture) return;
  state().faults.push_back("a stream was destroyed while it was captured");
  end(capture);
}

}  // namespace emulated_cuda

using namespace emulated_cuda;

extern "C" {

CUresult cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
  ENTER("cuStreamBeginCapture");
  Stream* stream = stream_of(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (stream == &state().null_stream) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  const std::lock_guard lock(state().mutex);
  if (stream->captured.capture) return CUDA_ERROR_ILLEGAL_STATE;
  auto capture = std::make_shared<Capture>(Capture{stream, std::this_thread::get_id(), mode, {}});
  stream->captured = {capture, {}};
  state().captures.push_back(std::move(capture));
  return CUDA_SUCCESS;
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
  ENTER("cuStreamIsCapturing");
  Stream* stream = stream_of(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  const std::lock_guard lock(state().mutex);
  const auto& capture = stream->captured.capture;
  *status = !capture               ? CU_STREAM_CAPTURE_STATUS_NONE
            : capture->is_invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                  : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  return CUDA_SUCCESS;
}

// Whatever it returns, the capture is over.
CUresult cuStreamEndCapture(CUstream handle, CUgraph* graph) {
  const int entered_with = entered("cuStreamEndCapture", true);
  *graph = nullptr;
  Stream* stream = stream_of(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  const std::lock_guard lock(state().mutex);
  const auto capture = stream->captured.capture;
  if (!capture || capture->origin != stream) return CUDA_ERROR_ILLEGAL_STATE;
  const bool is_own = capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED || capture->thread == std::this_thread::get_id();
  if (!is_own) return static_cast<CUresult>(invalidated(*capture, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD));
  const Indices last = stream->captured.after;
  end(capture);
  if (entered_with) return static_cast<CUresult>(entered_with);
  if (capture->is_invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (up_to(capture->graph, last).size() < capture->graph.size()) return CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  *graph = kept(state().graphs, std::make_shared<const Graph>(capture->graph));
  return CUDA_SUCCESS;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec* made, CUgraph graph, unsigned long long) {
  ENTER("cuGraphInstantiate");
  const std::lock_guard lock(state().mutex);
  const auto found = state().graphs.find(graph);
  if (found == state().graphs.end()) return CUDA_ERROR_INVALID_VALUE;
  *made = kept(state().graph_execs, found->second);
  return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph graph) {
  ENTER_CLEANUP("cuGraphDestroy");
  const std::lock_guard lock(state().mutex);
  return state().graphs.erase(graph) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream handle) {
  ENTER("cuGraphLaunch");
  Stream* stream = stream_of(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  ADMIT(admits_waiting(stream));  // graphs within graphs are not emulated
  std::shared_ptr<const Graph> graph;
  Indices order;
  {
    const std::lock_guard lock(state().mutex);
    const auto found = state().graph_execs.find(exec);
    if (found == state().graph_execs.end()) return CUDA_ERROR_INVALID_VALUE;
    graph = found->second;
    order = schedule(*graph);
    ++state().graph_launches;
  }
  for (const std::size_t index : order) enqueue(stream, (*graph)[index].work);
  return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec exec) {
  ENTER_CLEANUP("cuGraphExecDestroy");
  const std::lock_guard lock(state().mutex);
  return state().graph_execs.erase(exec) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

}  // extern "C"

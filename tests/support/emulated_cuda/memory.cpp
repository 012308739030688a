// Device memory, pinned host memory, copies.
#include <cstring>

#include "emulator.h"

namespace emulated_cuda {
namespace {

constexpr std::size_t GUARD = 256;
constexpr unsigned char GUARD_BYTE = 0xa5, FRESH_BYTE = 0xff;  // floats of fresh memory are NaN

using Memory = std::map<std::uintptr_t, Allocation>;

std::uintptr_t allocate(Memory& memory, std::size_t bytes, unsigned flags) {
  Allocation made;
  made.memory = std::make_unique<unsigned char[]>(bytes + 2 * GUARD);
  made.bytes = bytes;
  made.flags = flags;
  std::memset(made.memory.get(), GUARD_BYTE, bytes + 2 * GUARD);
  std::memset(made.memory.get() + GUARD, FRESH_BYTE, bytes);
  const auto address = reinterpret_cast<std::uintptr_t>(made.memory.get() + GUARD);
  const std::lock_guard lock(state().mutex);
  memory[address] = std::move(made);
  return address;
}

int release(Memory& memory, std::uintptr_t address, const char* name) {
  std::unique_lock lock(state().mutex);
  const auto found = memory.find(address);
  if (found == memory.end()) return CUDA_ERROR_INVALID_VALUE;
  const std::size_t bytes = found->second.bytes;
  if (is_pending(reinterpret_cast<const void*>(address), bytes)) {
    state().faults.push_back(std::string(name) + " of memory that queued work uses");
    lock.unlock();
    drain_all();
    lock.lock();
  }
  if (!guards_hold(memory.at(address))) state().faults.push_back(std::string(name) + ": written outside of it");
  memory.erase(address);
  return 0;
}

bool is_pinned(const void* address, std::size_t bytes) {
  const std::lock_guard lock(state().mutex);
  return covers(state().host_memory, reinterpret_cast<std::uintptr_t>(address), bytes);
}

bool is_on_device(CUdeviceptr address, std::size_t bytes) {
  const std::lock_guard lock(state().mutex);
  return covers(state().device_memory, address, bytes);
}

// Queues a copy between the device and pinned memory. It looks again when it runs: both have to live until then.
void enqueue_copy(Stream* stream, void* to, const void* from, std::size_t bytes, CUdeviceptr device, const void* host) {
  const auto copy = [=] {
    if (is_on_device(device, bytes) && is_pinned(host, bytes)) {
      std::memcpy(to, from, bytes);
    } else {
      fault("a queued copy found its memory freed");
    }
  };
  enqueue(stream, {copy, {{to, bytes}, {from, bytes}}});
}

void count_copy(bool pageable) {
  const std::lock_guard lock(state().mutex);
  ++state().copies;
  state().pageable_copies += pageable;
}

}  // namespace

bool covers(const Memory& memory, std::uintptr_t address, std::size_t bytes) {
  auto found = memory.upper_bound(address);
  if (found == memory.begin()) return false;
  --found;
  const std::size_t offset = address - found->first;
  return offset <= found->second.bytes && bytes <= found->second.bytes - offset;
}

bool guards_hold(const Allocation& allocation) {
  const unsigned char* memory = allocation.memory.get();
  for (std::size_t i = 0; i < GUARD; ++i) {
    if (memory[i] != GUARD_BYTE || memory[GUARD + allocation.bytes + i] != GUARD_BYTE) return false;
  }
  return true;
}

void check_guards(const std::string& after) {
  const std::lock_guard lock(state().mutex);
  for (const Memory* memory : {&state().device_memory, &state().host_memory}) {
    for (const auto& [address, allocation] : *memory) {
      if (!guards_hold(allocation)) state().faults.push_back(after + " wrote outside of its memory");
    }
  }
}

}  // namespace emulated_cuda

using namespace emulated_cuda;

extern "C" {

CUresult cuMemAlloc(CUdeviceptr* address, std::size_t bytes) {
  ENTER("cuMemAlloc");
  ADMIT(admits_unsafe_call());
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  *address = allocate(state().device_memory, bytes, 0);
  return CUDA_SUCCESS;
}

CUresult cuMemFree(CUdeviceptr address) {
  ENTER_CLEANUP("cuMemFree");
  ADMIT(admits_unsafe_call());
  return static_cast<CUresult>(release(state().device_memory, address, "cuMemFree"));
}

CUresult cuMemGetInfo(std::size_t* available, std::size_t* total) {
  ENTER("cuMemGetInfo");
  ADMIT(admits_unsafe_call());
  *available = *total = std::size_t{8} << 30;
  return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void** address, std::size_t bytes, unsigned flags) {
  ENTER("cuMemHostAlloc");
  ADMIT(admits_unsafe_call());
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  *address = reinterpret_cast<void*>(allocate(state().host_memory, bytes, flags));
  return CUDA_SUCCESS;
}

CUresult cuMemFreeHost(void* address) {
  ENTER_CLEANUP("cuMemFreeHost");
  ADMIT(admits_unsafe_call());
  const auto key = reinterpret_cast<std::uintptr_t>(address);
  return static_cast<CUresult>(release(state().host_memory, key, "cuMemFreeHost"));
}

CUresult cuMemHostGetDevicePointer(CUdeviceptr* device, void* host, unsigned) {
  ENTER("cuMemHostGetDevicePointer");
  const std::lock_guard lock(state().mutex);
  const auto found = state().host_memory.find(reinterpret_cast<std::uintptr_t>(host));
  const bool mapped = found != state().host_memory.end() && (found->second.flags & CU_MEMHOSTALLOC_DEVICEMAP);
  if (!mapped) return CUDA_ERROR_INVALID_VALUE;
  *device = found->first;
  return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoD(CUdeviceptr to, const void* from, std::size_t bytes) {
  ENTER("cuMemcpyHtoD");
  ADMIT(admits_null_stream());
  if (!is_on_device(to, bytes)) return CUDA_ERROR_INVALID_VALUE;
  drain_blocking();
  count_copy(false);
  std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoH(void* to, CUdeviceptr from, std::size_t bytes) {
  ENTER("cuMemcpyDtoH");
  ADMIT(admits_null_stream());
  if (!is_on_device(from, bytes)) return CUDA_ERROR_INVALID_VALUE;
  drain_blocking();
  count_copy(false);
  std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, std::size_t bytes, CUstream handle) {
  ENTER("cuMemcpyHtoDAsync");
  Stream* stream = stream_of(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  ADMIT(admits_work(stream));
  if (!is_on_device(to, bytes)) return CUDA_ERROR_INVALID_VALUE;
  void* target = reinterpret_cast<void*>(to);
  const bool pinned = is_pinned(from, bytes);
  if (!pinned) ADMIT(admits_waiting(stream));
  count_copy(!pinned);
  if (pinned) {
    enqueue_copy(stream, target, from, bytes, to, from);
  } else {  // a driver stages pageable memory before it returns
    const auto* first = static_cast<const unsigned char*>(from);
    auto staged = std::make_shared<std::vector<unsigned char>>(first, first + bytes);
    enqueue(stream, {[=] { std::memcpy(target, staged->data(), bytes); }, {{target, bytes}}});
  }
  return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, std::size_t bytes, CUstream handle) {
  ENTER("cuMemcpyDtoHAsync");
  Stream* stream = stream_of(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  ADMIT(admits_work(stream));
  if (!is_on_device(from, bytes)) return CUDA_ERROR_INVALID_VALUE;
  const void* source = reinterpret_cast<const void*>(from);
  const bool pinned = is_pinned(to, bytes);
  if (!pinned) ADMIT(admits_waiting(stream));
  count_copy(!pinned);
  if (pinned) {
    enqueue_copy(stream, to, source, bytes, from, to);
  } else {  // and has copied to it when it returns
    drain(stream);
    std::memcpy(to, source, bytes);
  }
  return CUDA_SUCCESS;
}

CUresult cuMemsetD8(CUdeviceptr address, unsigned char value, std::size_t bytes) {
  ENTER("cuMemsetD8");
  ADMIT(admits_null_stream());
  if (!is_on_device(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
  drain_blocking();
  std::memset(reinterpret_cast<void*>(address), value, bytes);
  return CUDA_SUCCESS;
}

}  // extern "C"

// Devices, contexts, and what tests ask of the emulator itself.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "emulator.h"

extern "C" void emulated_cuda_fail(const char* name, long after, int code, int for_good);

namespace emulated_cuda {

State& state() {
  static State* all = new State;  // never destroyed: Python's objects may outlive this library's
  return *all;
}

int& context_depth() {
  thread_local int depth = 0;
  return depth;
}

void fault(const std::string& text) {
  const std::lock_guard lock(state().mutex);
  state().faults.push_back(text);
}

int entered(const char* name, bool needs_context, bool cleanup) {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  ++all.calls;
  if (all.lost) return all.lost;
  const bool is_meant = all.fail_name == name || (all.fail_name == "*" && std::strcmp(name, "cuCtxPushCurrent") != 0);
  if (!cleanup && all.fail_after > 0 && is_meant && --all.fail_after == 0) {
    if (all.fail_for_good) all.lost = all.fail_code;
    return all.fail_code;
  }
  if (!all.initialised && std::strcmp(name, "cuInit") != 0) return CUDA_ERROR_NOT_INITIALIZED;
  if (needs_context && context_depth() == 0) {
    all.faults.push_back(std::string(name) + " without a current context");
    return CUDA_ERROR_INVALID_CONTEXT;
  }
  return 0;
}

namespace {

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char character : text) {
    if (character == '"' || character == '\\') result += '\\';
    result += character;
  }
  return result + "\"";
}

std::string report() {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  std::size_t bytes = 0;
  for (const auto& [address, allocation] : all.device_memory) bytes += allocation.bytes;
  const std::pair<const char*, long> figures[] = {
      {"device_allocations", static_cast<long>(all.device_memory.size())},
      {"device_bytes", static_cast<long>(bytes)},
      {"host_allocations", static_cast<long>(all.host_memory.size())},
      {"streams", static_cast<long>(all.streams.size())},
      {"events", static_cast<long>(all.events.size())},
      {"modules", all.modules},
      {"primary_retains", all.primary_retains},
      {"context_depth", context_depth()},
      {"calls", all.calls},
      {"copies", all.copies},
      {"pageable_copies", all.pageable_copies},
      {"launches", all.launches},
      {"captures", static_cast<long>(all.captures.size())},
      {"graphs", static_cast<long>(all.graphs.size())},
      {"graph_execs", static_cast<long>(all.graph_execs.size())},
      {"graph_launches", all.graph_launches},
  };
  std::string text = "{";
  for (const auto& [name, value] : figures) text += quoted(name) + ": " + std::to_string(value) + ", ";
  text += "\"faults\": [";
  for (std::size_t i = 0; i < all.faults.size(); ++i) text += (i ? ", " : "") + quoted(all.faults[i]);
  return text + "]}";
}

char primary_context;  // its address is the handle

// EMULATED_CUDA_FAIL holds the arguments of `emulated_cuda_fail`, separated by spaces.
__attribute__((constructor)) void read_failure() {
  const char* wanted = std::getenv("EMULATED_CUDA_FAIL");
  char name[100];
  long after = 0;
  int code = 0, for_good = 0;
  if (wanted && std::sscanf(wanted, "%99s %ld %d %d", name, &after, &code, &for_good) == 4) {
    emulated_cuda_fail(name, after, code, for_good);
  }
}

__attribute__((destructor)) void write_report() {
  const char* path = state().calls ? std::getenv("EMULATED_CUDA_REPORT") : nullptr;  // not of every helper process
  if (std::FILE* file = path ? std::fopen(path, "w") : nullptr) {
    std::fputs(report().c_str(), file);
    std::fclose(file);
  }
}

}  // namespace
}  // namespace emulated_cuda

using emulated_cuda::context_depth;
using emulated_cuda::state;

extern "C" {

// For tests. The report as JSON; returns its length, which may be more than was written.
std::size_t emulated_cuda_report(char* text, std::size_t bytes) {
  const std::string report = emulated_cuda::report();
  std::snprintf(text, bytes, "%s", report.c_str());
  return report.size();
}

// For tests. The `after`-th call of that name returns `code`; with `for_good`, and all calls after it. `*` counts calls of
// any name but cuCtxPushCurrent, without which there is nothing to go on with.
void emulated_cuda_fail(const char* name, long after, int code, int for_good) {
  const std::lock_guard lock(state().mutex);
  state().fail_name = name;
  state().fail_after = after;
  state().fail_code = code;
  state().fail_for_good = for_good != 0;
}

// For stand-ins of libraries that use the device.
void emulated_cuda_fault(const char* text) { emulated_cuda::fault(text); }

// For stand-ins. Whether the device can use these bytes: device memory, or host memory that is mapped.
int emulated_cuda_covers(CUdeviceptr address, std::size_t bytes) {
  const std::lock_guard lock(state().mutex);
  return emulated_cuda::covers(state().device_memory, address, bytes) ||
         emulated_cuda::covers(state().host_memory, address, bytes);
}

int emulated_cuda_not_there(const char* name) {
  emulated_cuda::fault(std::string(name) + " is not emulated");
  return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuInit(unsigned) {
  ENTER_WITHOUT_CONTEXT("cuInit");
  if (std::getenv("EMULATED_CUDA_NO_DEVICE")) return CUDA_ERROR_NO_DEVICE;
  state().initialised = true;
  return CUDA_SUCCESS;
}

// NVRTC asks for a table of functions that NVIDIA's libraries share; this one holds nothing but its own size.
CUresult cuGetExportTable(const void** table, const CUuuid*) {
  static const std::size_t empty[] = {sizeof(std::size_t)};
  *table = empty;
  return CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int* version) {
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}

// How cuda-python finds every function. Its name there is without the version that the symbol ends with.
CUresult cuGetProcAddress(const char* name, void** function, int, cuuint64_t, CUdriverProcAddressQueryResult* outcome) {
  const std::string wanted = std::strcmp(name, "cuGraphInstantiate") == 0 ? "cuGraphInstantiateWithFlags" : name;
  *function = nullptr;
  for (const char* version : {"_v4", "_v3", "_v2", ""}) {
    if (!*function) *function = dlsym(RTLD_DEFAULT, (wanted + version).c_str());
  }
  if (outcome) *outcome = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuGetErrorString(CUresult error, const char** text) {
  static const std::map<int, const char*> known = {
      {1, "invalid argument"},
      {2, "out of memory"},
      {3, "initialization error"},
      {100, "no CUDA-capable device is detected"},
      {101, "invalid device ordinal"},
      {200, "device kernel image is invalid"},
      {201, "invalid device context"},
      {400, "invalid resource handle"},
      {500, "named symbol not found"},
      {700, "an illegal memory access was encountered"},
      {701, "too many resources requested for launch"},
      {719, "unspecified launch failure"},
      {801, "operation not supported"},
      {900, "operation not permitted when stream is capturing"},
      {901, "operation failed due to a previous error during capture"},
      {904, "capturing stream has unjoined work"},
      {905, "dependency created on uncaptured work in another stream"},
      {906, "operation would make the legacy stream depend on a capturing blocking stream"},
      {907, "operation not permitted on an event last recorded in a capturing stream"},
      {908, "attempt to terminate a thread-local capture sequence from another thread"},
  };
  const auto found = known.find(error);
  *text = found == known.end() ? "some CUDA error" : found->second;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int* count) {
  ENTER_WITHOUT_CONTEXT("cuDeviceGetCount");
  *count = 1;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  ENTER_WITHOUT_CONTEXT("cuDeviceGet");
  *device = ordinal;
  return ordinal == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetName(char* name, int bytes, CUdevice) {
  ENTER_WITHOUT_CONTEXT("cuDeviceGetName");
  std::snprintf(name, bytes, "emulated GPU");
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
  ENTER_WITHOUT_CONTEXT("cuDeviceGetAttribute");
  static const std::map<int, int> known = {
      {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 8},
      {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 6},
      {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
      {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 48 * 1024},
      {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
      {CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 1},
      {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1},
  };
  const auto found = known.find(attribute);
  *value = found == known.end() ? 0 : found->second;
  if (attribute == CU_DEVICE_ATTRIBUTE_INTEGRATED) *value = std::getenv("EMULATED_CUDA_INTEGRATED") != nullptr;
  return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice) {
  ENTER_WITHOUT_CONTEXT("cuDeviceComputeCapability");
  *major = 8;
  *minor = 6;
  return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(std::size_t* bytes, CUdevice) {
  ENTER_WITHOUT_CONTEXT("cuDeviceTotalMem");
  *bytes = std::size_t{8} << 30;
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
  ENTER_WITHOUT_CONTEXT("cuDevicePrimaryCtxRetain");
  *context = reinterpret_cast<CUcontext>(&emulated_cuda::primary_context);
  const std::lock_guard lock(state().mutex);
  ++state().primary_retains;
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice) {
  const std::lock_guard lock(state().mutex);
  if (state().primary_retains == 0) return CUDA_ERROR_INVALID_CONTEXT;
  --state().primary_retains;
  return CUDA_SUCCESS;
}

// A driver that has lost its device still knows which context is current.
CUresult cuCtxPushCurrent(CUcontext context) {
  if (!state().lost) ENTER_WITHOUT_CONTEXT("cuCtxPushCurrent");
  const bool usable = context == reinterpret_cast<CUcontext>(&emulated_cuda::primary_context);
  if (!usable || state().primary_retains == 0) return CUDA_ERROR_INVALID_CONTEXT;
  ++context_depth();
  return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext* context) {
  if (context_depth() == 0) return CUDA_ERROR_INVALID_CONTEXT;
  --context_depth();
  if (context) *context = reinterpret_cast<CUcontext>(&emulated_cuda::primary_context);
  return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext* context) {
  *context = context_depth() ? reinterpret_cast<CUcontext>(&emulated_cuda::primary_context) : nullptr;
  return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice* device) {
  ENTER("cuCtxGetDevice");
  *device = 0;
  return CUDA_SUCCESS;
}

CUresult cuCtxGetApiVersion(CUcontext, unsigned* version) {
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize() {
  ENTER("cuCtxSynchronize");
  ADMIT(admits_waiting_for_all());
  emulated_cuda::drain_all();
  return CUDA_SUCCESS;
}

}  // extern "C"

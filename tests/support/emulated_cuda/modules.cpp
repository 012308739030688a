// Modules and launches: a kernel is looked up by name in the library that EMULATED_CUDA_KERNELS names, where the same
// source is compiled for the CPU. What is loaded has to look like compiled code, but is not read.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../cuda_on_cpu/cuda_on_cpu.h"
#include "emulator.h"

using namespace emulated_cuda;
using cuda_on_cpu::Kernel;

namespace {

struct Module {
  void* library;
};

struct Function {
  const Kernel* kernel;
  decltype(&cuda_on_cpu_launch) launch;
};

constexpr std::size_t MAX_THREADS = 1024, MAX_BLOCK_Z = 64, MAX_GRID_YZ = 65535, MAX_SHARED = 48 * 1024;

bool can_be_launched(uint3 grid, uint3 block, unsigned shared) {
  const std::size_t threads = std::size_t{block.x} * block.y * block.z;
  return threads > 0 && threads <= MAX_THREADS && block.z <= MAX_BLOCK_Z && grid.x > 0 && grid.y > 0 && grid.z > 0 &&
         grid.x <= 0x7fffffff && grid.y <= MAX_GRID_YZ && grid.z <= MAX_GRID_YZ && shared <= MAX_SHARED;
}

// The arguments one behind the other as the kernel takes them; empty when the buffer given has another size.
std::vector<unsigned char> packed(const Kernel& kernel, void** parameters, void** extra, std::vector<std::size_t>& at) {
  std::size_t end = 0;
  for (std::size_t i = 0; i < kernel.parameter_count; ++i) {
    const auto [size, alignment] = kernel.parameters[i];
    at.push_back((end + alignment - 1) / alignment * alignment);
    end = at.back() + size;
  }
  std::vector<unsigned char> bytes(end);
  if (parameters) {
    for (std::size_t i = 0; i < at.size(); ++i) {
      std::memcpy(bytes.data() + at[i], parameters[i], kernel.parameters[i].size);
    }
    return bytes;
  }
  const void* given = nullptr;
  std::size_t given_bytes = 0;
  for (; extra && *extra != CU_LAUNCH_PARAM_END; extra += 2) {
    if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) given = extra[1];
    if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE) given_bytes = *static_cast<std::size_t*>(extra[1]);
  }
  if (given_bytes != end) {
    fault(std::string(kernel.name) + " takes " + std::to_string(end) + " bytes of arguments, got " +
          std::to_string(given_bytes));
    return {};
  }
  std::memcpy(bytes.data(), given, end);
  return bytes;
}

}  // namespace

extern "C" {

CUresult cuModuleLoadDataEx(CUmodule* handle, const void* image, unsigned count, CUjit_option* options, void** values) {
  for (unsigned index = 0; index < count; ++index) {  // how much of the logs is written: nothing
    if (options[index] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES || options[index] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) {
      values[index] = nullptr;
    }
  }
  ENTER("cuModuleLoadData");
  ADMIT(admits_unsafe_call());
  const bool is_code = std::memcmp(image, "\x7f""ELF", 4) == 0 || std::memcmp(image, "//", 2) == 0;
  const char* path = std::getenv("EMULATED_CUDA_KERNELS");
  void* library = is_code && path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
  if (!library) return CUDA_ERROR_INVALID_IMAGE;
  *handle = reinterpret_cast<CUmodule>(new Module{library});
  const std::lock_guard lock(state().mutex);
  ++state().modules;
  return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule* handle, const void* image) {
  return cuModuleLoadDataEx(handle, image, 0, nullptr, nullptr);
}

CUresult cuModuleUnload(CUmodule handle) {
  ENTER_CLEANUP("cuModuleUnload");
  auto* module = reinterpret_cast<Module*>(handle);
  drain_all();
  dlclose(module->library);
  delete module;
  const std::lock_guard lock(state().mutex);
  --state().modules;
  return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction* handle, CUmodule module_handle, const char* name) {
  ENTER("cuModuleGetFunction");
  void* library = reinterpret_cast<Module*>(module_handle)->library;
  const auto find = reinterpret_cast<decltype(&cuda_on_cpu_find)>(dlsym(library, "cuda_on_cpu_find"));
  const auto launch = reinterpret_cast<decltype(&cuda_on_cpu_launch)>(dlsym(library, "cuda_on_cpu_launch"));
  const Kernel* kernel = find && launch ? find(name) : nullptr;
  if (!kernel) return CUDA_ERROR_NOT_FOUND;
  static std::map<const Kernel*, std::unique_ptr<Function>> known;
  const std::lock_guard lock(state().mutex);
  auto& function = known[kernel];
  if (!function) function = std::make_unique<Function>(Function{kernel, launch});
  *handle = reinterpret_cast<CUfunction>(function.get());
  return CUDA_SUCCESS;
}

CUresult cuFuncSetBlockShape(CUfunction, int, int, int) { return CUDA_SUCCESS; }
CUresult cuFuncSetSharedSize(CUfunction, unsigned) { return CUDA_SUCCESS; }

CUresult cuFuncGetAttribute(int* value, CUfunction_attribute, CUfunction) {
  *value = 0;
  return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(
    CUfunction handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
    unsigned block_z, unsigned shared_bytes, CUstream stream_handle, void** parameters, void** extra) {
  ENTER("cuLaunchKernel");
  Stream* stream = stream_of(stream_handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  ADMIT(admits_work(stream));
  const cuda_on_cpu::Launch launch = {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, 0};
  if (!can_be_launched(launch.grid, launch.block, shared_bytes)) return CUDA_ERROR_INVALID_VALUE;
  const Function function = *reinterpret_cast<Function*>(handle);
  std::vector<std::size_t> offsets;
  auto arguments = std::make_shared<std::vector<unsigned char>>(packed(*function.kernel, parameters, extra, offsets));
  if (arguments->empty()) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  {
    const std::lock_guard lock(state().mutex);
    if (!stream->captured.capture) ++state().launches;
  }
  enqueue(stream, {[=] {
            std::vector<void*> addresses;
            for (const std::size_t offset : offsets) addresses.push_back(arguments->data() + offset);
            char reason[300] = "";
            if (function.launch(function.kernel, &launch, addresses.data(), reason, sizeof reason)) fault(reason);
            check_guards(function.kernel->name);
          }});
  return CUDA_SUCCESS;
}

}  // extern "C"

// The kernels that are known, and the checks that a driver makes before it launches one.
#include <algorithm>
#include <cstdio>
#include <random>

#include "scheduler.h"

namespace cuda_on_cpu {

constinit thread_local Thread* current = nullptr;

namespace {

const Kernel*& first_kernel() {
  static const Kernel* first = nullptr;
  return first;
}

void check(const Launch& launch) {
  const auto [x, y, z] = launch.block;
  const std::uint64_t threads = std::uint64_t{x} * y * z;
  if (threads == 0 || threads > 1024 || z > 64) throw std::runtime_error("a block of this size cannot be launched");
  const uint3& grid = launch.grid;
  if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) {
    throw std::runtime_error("a grid of this size cannot be launched");
  }
  if (launch.shared_bytes > 48 * 1024) throw std::runtime_error("more shared memory than a block has");
}

}  // namespace

Registration::Registration(Kernel described) : kernel(described) {
  kernel.next = first_kernel();
  first_kernel() = &kernel;
}

std::uint64_t exchange(std::uint64_t value, unsigned from) {
  // Two rows in turn: no thread can be two shuffles ahead of another one of its warp.
  std::uint64_t* row = current->slots[current->shuffles++ % 2];
  row[current->linear % WARP] = value;
  sync_warp();
  return from < WARP ? row[from] : value;
}

}  // namespace cuda_on_cpu

const cuda_on_cpu::Kernel* cuda_on_cpu_find(const char* name) {
  const cuda_on_cpu::Kernel* kernel = cuda_on_cpu::first_kernel();
  while (kernel && std::strcmp(kernel->name, name) != 0) kernel = kernel->next;
  return kernel;
}

int cuda_on_cpu_launch(
    const cuda_on_cpu::Kernel* kernel, const cuda_on_cpu::Launch* launch, void** arguments, char* error,
    std::size_t error_bytes) {
  try {
    cuda_on_cpu::check(*launch);
    std::vector<uint3> blocks;
    for (unsigned z = 0; z < launch->grid.z; ++z) {
      for (unsigned y = 0; y < launch->grid.y; ++y) {
        for (unsigned x = 0; x < launch->grid.x; ++x) blocks.push_back({x, y, z});
      }
    }
    if (launch->seed) std::shuffle(blocks.begin(), blocks.end(), std::mt19937(launch->seed));
    cuda_on_cpu::run(*kernel, *launch, blocks, arguments);
    return 0;
  } catch (const std::exception& exception) {
    std::snprintf(error, error_bytes, "%s: %s", kernel->name, exception.what());
    return 1;
  }
}

// Between launch.cpp and the schedulers fibers.cpp and threads.cpp.
#pragma once

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <vector>

#include "cuda_on_cpu.h"

namespace cuda_on_cpu {

// What the threads of one block share, and their identities.
class Block {
 public:
  Block(const Launch& launch, uint3 index)
      : shared_bytes_(launch.shared_bytes),
        shared_(static_cast<unsigned char*>(std::malloc(launch.shared_bytes + GUARD)), std::free) {
    const unsigned count = launch.block.x * launch.block.y * launch.block.z;
    std::memset(shared_.get(), 0xff, shared_bytes_ + GUARD);
    slots_.resize((count + WARP - 1) / WARP * 2 * WARP);
    for (unsigned i = 0; i < count; ++i) {
      const uint3 position = {
          i % launch.block.x, i / launch.block.x % launch.block.y, i / (launch.block.x * launch.block.y)};
      auto* slots = reinterpret_cast<std::uint64_t(*)[WARP]>(slots_.data() + i / WARP * 2 * WARP);
      threads.push_back({position, index, &launch, i, shared_.get(), slots, 0});
    }
  }

  // Whether a thread wrote behind the shared memory; AddressSanitizer sees that itself, and reads too.
  bool is_overrun() const {
    for (std::size_t i = 0; i < GUARD; ++i) {
      if (shared_.get()[shared_bytes_ + i] != 0xff) return true;
    }
    return false;
  }

  std::vector<Thread> threads;

 private:
#ifdef __SANITIZE_ADDRESS__
  static constexpr std::size_t GUARD = 0;
#else
  static constexpr std::size_t GUARD = 256;
#endif
  std::size_t shared_bytes_;
  std::unique_ptr<unsigned char, decltype(&std::free)> shared_;
  std::vector<std::uint64_t> slots_;
};

// Runs all blocks in the order given. Raises: std::runtime_error for what a kernel did wrong.
void run(const Kernel& kernel, const Launch& launch, const std::vector<uint3>& blocks, void** arguments);

}  // namespace cuda_on_cpu

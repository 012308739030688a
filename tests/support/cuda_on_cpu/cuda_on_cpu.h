// Runs CUDA kernels on the CPU, for tests: include this before an unchanged .cu file and compile it as C++20.
//
// One of two schedulers is linked with it. fibers.cpp runs the threads of a block one after another, each as a fiber
// that gives way at barriers and shuffles, in an order that a seed shuffles; what is wrong without a barrier is then
// wrong every time. threads.cpp gives each CUDA thread one of the system's, for ThreadSanitizer.
//
// Shared memory starts as bytes 0xff (NaN as float), as a GPU's is not zeroed. Only dynamic shared memory is there.
// Atomics are sequentially consistent, so a missing fence is the one kind of fault that cannot be seen here.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define DYNAMIC_SHARED(name) unsigned char* name = cuda_on_cpu::current->shared

struct uint3 {
  unsigned x, y, z;
};

namespace cuda_on_cpu {

constexpr unsigned WARP = 32;

struct Launch {
  uint3 grid, block;
  unsigned shared_bytes;
  unsigned seed;  // 0 leaves threads and blocks in their order
};

struct Thread {
  uint3 index, block;
  const Launch* launch;
  unsigned linear;                 // within the block
  unsigned char* shared;           // of the block
  std::uint64_t (*slots)[WARP];    // two rows of the warp, for shuffles
  unsigned shuffles;               // that this thread took part in
};

extern constinit thread_local Thread* current;

void sync_block();
void sync_warp();

// The value that lane `from` of the warp passed in; the own one where there is no such lane.
std::uint64_t exchange(std::uint64_t value, unsigned from);

struct Parameter {
  std::size_t size, alignment;
};

struct Kernel {
  const char* name;
  void (*call)(void** arguments);
  const Parameter* parameters;
  std::size_t parameter_count;
  const Kernel* next;
};

// Makes a kernel known by its name.
struct Registration {
  explicit Registration(Kernel kernel);
  Kernel kernel;
};

template <auto function>
struct Entry;

template <typename... Arguments, void (*function)(Arguments...)>
struct Entry<function> {
  static constexpr Parameter parameters[] = {{sizeof(Arguments), alignof(Arguments)}...};

  static void call(void** arguments) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      function(*static_cast<Arguments*>(arguments[I])...);
    }(std::index_sequence_for<Arguments...>{});
  }

  static constexpr Kernel kernel(const char* name) { return {name, call, parameters, sizeof...(Arguments), nullptr}; }
};

}  // namespace cuda_on_cpu

#define CUDA_ON_CPU_KERNEL(name) \
  static const cuda_on_cpu::Registration registration_of_##name(cuda_on_cpu::Entry<&name>::kernel(#name))

extern "C" {
// The kernel of that name, or null.
const cuda_on_cpu::Kernel* cuda_on_cpu_find(const char* name);

// Runs a kernel to its end. `arguments` holds the address of each one. Returns 0, or 1 with the reason in `error`.
int cuda_on_cpu_launch(
    const cuda_on_cpu::Kernel* kernel, const cuda_on_cpu::Launch* launch, void** arguments, char* error,
    std::size_t error_bytes);
}

#define threadIdx (cuda_on_cpu::current->index)
#define blockIdx (cuda_on_cpu::current->block)
#define blockDim (cuda_on_cpu::current->launch->block)
#define gridDim (cuda_on_cpu::current->launch->grid)

using std::size_t;

inline void __syncthreads() { cuda_on_cpu::sync_block(); }
inline void __threadfence() {}
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline int max(int a, int b) { return a < b ? b : a; }
inline int min(int a, int b) { return b < a ? b : a; }
inline unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }

inline unsigned __shfl_xor_sync(unsigned, unsigned value, int lanes) {
  return static_cast<unsigned>(cuda_on_cpu::exchange(value, cuda_on_cpu::current->linear % cuda_on_cpu::WARP ^ lanes));
}

inline unsigned atomicMax(unsigned* at, unsigned value) {
  unsigned old = __atomic_load_n(at, __ATOMIC_SEQ_CST);
  while (old < value && !__atomic_compare_exchange_n(at, &old, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
  }
  return old;
}

inline unsigned atomicExch(unsigned* at, unsigned value) { return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST); }

// Counts up to `last` and starts again at 0.
inline unsigned atomicInc(unsigned* at, unsigned last) {
  unsigned old = __atomic_load_n(at, __ATOMIC_SEQ_CST);
  while (!__atomic_compare_exchange_n(
      at, &old, old >= last ? 0 : old + 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
  }
  return old;
}

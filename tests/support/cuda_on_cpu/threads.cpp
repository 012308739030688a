// One thread of the system for each CUDA thread, some blocks at a time: for ThreadSanitizer, see cuda_on_cpu.h.
//
// A barrier that only some threads reach is a deadlock here; whoever starts this sets a time limit.
#include <pthread.h>

#include <algorithm>
#include <optional>
#include <thread>

#include "scheduler.h"

namespace cuda_on_cpu {
namespace {

constexpr std::size_t BLOCKS_AT_ONCE = 2;

// Two in turn, for what ThreadSanitizer makes of one that is used again: a thread that is slow to leave it takes over
// from those that came back to it in the meantime, as if it had waited for them, and a race goes unseen.
class Barrier {
 public:
  explicit Barrier(unsigned count) {
    for (pthread_barrier_t& barrier : barriers_) pthread_barrier_init(&barrier, nullptr, count);
  }
  Barrier(const Barrier&) = delete;
  ~Barrier() {
    for (pthread_barrier_t& barrier : barriers_) pthread_barrier_destroy(&barrier);
  }

  // `waits` is the calling thread's own count.
  void wait(unsigned& waits) { pthread_barrier_wait(&barriers_[waits++ % 2]); }

 private:
  pthread_barrier_t barriers_[2];
};

// As many threads as a block has. They run one block after another, which is cheaper than new threads for each.
class Group {
 public:
  explicit Group(unsigned count) : barrier_(count) {
    for (unsigned first = 0; first < count; first += WARP) {
      warps_.push_back(std::make_unique<Barrier>(std::min(WARP, count - first)));
    }
  }

  // One of the threads: it takes its part in every `stride`-th of the blocks.
  void run(unsigned linear, const Kernel& kernel, const Launch& launch, const std::vector<uint3>& blocks,
           std::size_t first, std::size_t stride, void** arguments) {
    own = this;
    block_waits = warp_waits = 0;
    for (std::size_t i = first; i < blocks.size(); i += stride) {
      if (linear == 0) block_.emplace(launch, blocks[i]);
      barrier_.wait(block_waits);
      current = &block_->threads[linear];
      kernel.call(arguments);
      barrier_.wait(block_waits);
      if (linear == 0) overrun |= block_->is_overrun();
    }
  }

  void sync_block() { barrier_.wait(block_waits); }
  void sync_warp() { warps_[current->linear / WARP]->wait(warp_waits); }

  bool overrun = false;
  static thread_local Group* own;

 private:
  static thread_local unsigned block_waits, warp_waits;

  Barrier barrier_;
  std::vector<std::unique_ptr<Barrier>> warps_;
  std::optional<Block> block_;
};

thread_local Group* Group::own = nullptr;
thread_local unsigned Group::block_waits = 0;
thread_local unsigned Group::warp_waits = 0;

}  // namespace

void sync_block() { Group::own->sync_block(); }
void sync_warp() { Group::own->sync_warp(); }

void run(const Kernel& kernel, const Launch& launch, const std::vector<uint3>& blocks, void** arguments) {
  const unsigned count = launch.block.x * launch.block.y * launch.block.z;
  std::vector<std::unique_ptr<Group>> groups;
  std::vector<std::thread> threads;
  for (std::size_t first = 0; first < std::min(BLOCKS_AT_ONCE, blocks.size()); ++first) {
    Group* group = groups.emplace_back(std::make_unique<Group>(count)).get();
    for (unsigned linear = 0; linear < count; ++linear) {
      threads.emplace_back([=, &kernel, &launch, &blocks] {
        group->run(linear, kernel, launch, blocks, first, BLOCKS_AT_ONCE, arguments);
      });
    }
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& group : groups) {
    if (group->overrun) throw std::runtime_error("write behind the shared memory");
  }
}

}  // namespace cuda_on_cpu

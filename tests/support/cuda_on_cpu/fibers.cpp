// One fiber for each thread of a block, blocks one after another: see cuda_on_cpu.h.
#include <ucontext.h>

#include <algorithm>
#include <random>

#include "scheduler.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_on_cpu {
namespace {

constexpr std::size_t STACK_BYTES = 128 * 1024;

enum class State { ready, at_block_barrier, at_warp_barrier, finished };

struct Fiber {
  ucontext_t context;
  State state = State::ready;
};

// AddressSanitizer has to be told when the stack changes.
class Switch {
 public:
#ifdef __SANITIZE_ADDRESS__
  static void away(void** fake_stack, const void* bottom, std::size_t size) {
    __sanitizer_start_switch_fiber(fake_stack, bottom, size);
  }
  static void arrived(void* fake_stack, const void** bottom, std::size_t* size) {
    __sanitizer_finish_switch_fiber(fake_stack, bottom, size);
  }
#else
  static void away(void**, const void*, std::size_t) {}
  static void arrived(void*, const void**, std::size_t*) {}
#endif
};

class Fibers {
 public:
  Fibers(const Kernel& kernel, Block& block, const std::vector<unsigned>& order, void** arguments)
      : kernel_(kernel), block_(block), order_(order), arguments_(arguments), fibers_(block.threads.size()) {
    running = this;
    if (stacks.size() < fibers_.size()) stacks.resize(fibers_.size(), std::vector<char>(STACK_BYTES));
    for (std::size_t i = 0; i < fibers_.size(); ++i) {
      getcontext(&fibers_[i].context);
      fibers_[i].context.uc_stack.ss_sp = stacks[i].data();
      fibers_[i].context.uc_stack.ss_size = STACK_BYTES;
      makecontext(&fibers_[i].context, enter, 0);
    }
  }

  void run() {
    while (count(State::finished) < fibers_.size()) {
      for (unsigned i : order_) {
        if (fibers_[i].state == State::ready) resume(i);
      }
      if (!release_warps() && count(State::finished) < fibers_.size()) release_block();
    }
  }

  // Called on a fiber.
  void wait(State state) {
    Fiber& own = fibers_[current->linear];
    own.state = state;
    void* fake_stack = nullptr;
    // A fiber that has ended gives its fake stack back.
    Switch::away(state == State::finished ? nullptr : &fake_stack, scheduler_bottom_, scheduler_size_);
    swapcontext(&own.context, &scheduler_);
    Switch::arrived(fake_stack, nullptr, nullptr);
  }

  static thread_local Fibers* running;

 private:
  static void enter() {
    Fibers& all = *running;
    Switch::arrived(nullptr, &all.scheduler_bottom_, &all.scheduler_size_);
    all.kernel_.call(all.arguments_);
    all.wait(State::finished);
  }

  void resume(unsigned i) {
    current = &block_.threads[i];
    void* fake_stack = nullptr;
    Switch::away(&fake_stack, stacks[i].data(), STACK_BYTES);
    swapcontext(&scheduler_, &fibers_[i].context);
    Switch::arrived(fake_stack, nullptr, nullptr);
  }

  std::size_t count(State state) const {
    return std::count_if(fibers_.begin(), fibers_.end(), [=](const Fiber& fiber) { return fiber.state == state; });
  }

  bool release_warps() {
    bool any = false;
    for (std::size_t first = 0; first < fibers_.size(); first += WARP) {
      const auto begin = fibers_.begin() + first;
      const auto end = fibers_.begin() + std::min<std::size_t>(first + WARP, fibers_.size());
      if (std::all_of(begin, end, [](const Fiber& fiber) { return fiber.state == State::at_warp_barrier; })) {
        std::for_each(begin, end, [](Fiber& fiber) { fiber.state = State::ready; });
        any = true;
      }
    }
    return any;
  }

  void release_block() {
    if (count(State::at_block_barrier) < fibers_.size()) {
      throw std::runtime_error("only some threads reach a barrier or a shuffle");
    }
    for (Fiber& fiber : fibers_) fiber.state = State::ready;
  }

  static thread_local std::vector<std::vector<char>> stacks;

  const Kernel& kernel_;
  Block& block_;
  const std::vector<unsigned>& order_;
  void** arguments_;
  std::vector<Fiber> fibers_;
  ucontext_t scheduler_;
  const void* scheduler_bottom_ = nullptr;
  std::size_t scheduler_size_ = 0;
};

thread_local Fibers* Fibers::running = nullptr;
thread_local std::vector<std::vector<char>> Fibers::stacks;

}  // namespace

void sync_block() { Fibers::running->wait(State::at_block_barrier); }
void sync_warp() { Fibers::running->wait(State::at_warp_barrier); }

void run(const Kernel& kernel, const Launch& launch, const std::vector<uint3>& blocks, void** arguments) {
  std::mt19937 random(launch.seed);
  std::vector<unsigned> order(launch.block.x * launch.block.y * launch.block.z);
  for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
  for (const uint3& index : blocks) {
    if (launch.seed) std::shuffle(order.begin(), order.end(), random);
    Block block(launch, index);
    Fibers(kernel, block, order, arguments).run();
    if (block.is_overrun()) throw std::runtime_error("write behind the shared memory");
  }
}

}  // namespace cuda_on_cpu

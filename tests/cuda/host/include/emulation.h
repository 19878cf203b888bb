// Thread blocks on the host. Under ThreadSanitizer every CUDA thread of a block is a std::thread, so that races are
// seen. Otherwise every CUDA thread is a fiber, and all fibers of a block take turns on one thread of the host, which
// is many times faster: a fiber runs until it waits at a barrier.
//
// Blocks run one after another, so races between blocks are not seen.
#pragma once

#include <ucontext.h>

#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#include "cuda_runtime_api.h"

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

#if defined(__SANITIZE_THREAD__)

using Barrier = std::barrier<>;

inline void run_threads(unsigned count, const std::function<void(unsigned)>& body) {
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < count; ++thread) threads.emplace_back(body, thread);
  for (std::thread& thread : threads) thread.join();
}

#else

constexpr size_t kStackBytes = 256 * 1024;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<unsigned char[]> stack{new unsigned char[kStackBytes]};
  void* fake_stack = nullptr;
  bool done = true;
};

inline std::vector<std::unique_ptr<Fiber> > fibers;  // kept from launch to launch
inline ucontext_t scheduler;
inline Fiber* running = nullptr;
inline const std::function<void(unsigned)>* body_of_fibers = nullptr;
inline bool progress = false;  // since the scheduler last went through all fibers
inline const void* scheduler_stack = nullptr;
inline size_t scheduler_stack_bytes = 0;

inline void before_switch([[maybe_unused]] void** fake, [[maybe_unused]] const void* stack,
                          [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(fake, stack, bytes);
#endif
}
inline void after_switch([[maybe_unused]] void* fake, [[maybe_unused]] const void** stack,
                         [[maybe_unused]] size_t* bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, stack, bytes);
#endif
}

// Lets the other fibers run.
inline void yield() {
  Fiber* const self = running;
  before_switch(&self->fake_stack, scheduler_stack, scheduler_stack_bytes);
  swapcontext(&self->context, &scheduler);
  after_switch(self->fake_stack, &scheduler_stack, &scheduler_stack_bytes);
}

class Barrier {
 public:
  explicit Barrier(unsigned count) : count_(count) {}

  void arrive_and_wait() {
    progress = true;
    const unsigned phase = phase_;
    if (++arrived_ == count_) {
      arrived_ = 0, ++phase_;
      return;
    }
    while (phase == phase_) yield();
    progress = true;
  }

 private:
  unsigned count_, arrived_ = 0, phase_ = 0;
};

inline void fiber_main(unsigned thread) {
  after_switch(nullptr, &scheduler_stack, &scheduler_stack_bytes);
  (*body_of_fibers)(thread);
  running->done = true, progress = true;
  before_switch(nullptr, scheduler_stack, scheduler_stack_bytes);  // null: this fiber does not come back
  setcontext(&scheduler);
}

inline void run_threads(unsigned count, const std::function<void(unsigned)>& body) {
  while (fibers.size() < count) fibers.push_back(std::make_unique<Fiber>());
  body_of_fibers = &body;
  for (unsigned thread = 0; thread < count; ++thread) {
    Fiber& fiber = *fibers[thread];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get(), fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr, fiber.done = false, fiber.fake_stack = nullptr;
    makecontext(&fiber.context, reinterpret_cast<void (*)()>(fiber_main), 1, thread);
  }
  for (unsigned left = count; left > 0;) {
    progress = false;
    for (unsigned thread = 0; thread < count; ++thread) {
      Fiber& fiber = *fibers[thread];
      if (fiber.done) continue;
      running = &fiber, threadIdx = dim3(thread);
      void* fake = nullptr;
      before_switch(&fake, fiber.stack.get(), kStackBytes);
      swapcontext(&scheduler, &fiber.context);
      after_switch(fake, nullptr, nullptr);
      left -= fiber.done;
    }
    if (!progress) {
      std::fprintf(stderr, "threads of a block wait for each other at different barriers\n");
      std::abort();
    }
  }
}

#endif

// 32 threads of a block, and the buffer in which they exchange values: doubled, so that one barrier per exchange is
// enough.
struct Warp {
  Barrier threads{32};
  alignas(16) unsigned char exchange[2][16 * 1024];
  unsigned turn[32] = {};
};

// A running block. Shared memory has exactly the size that the launch asks for, so that AddressSanitizer sees accesses
// beyond it.
struct Block {
  Barrier threads;
  std::unique_ptr<unsigned char, decltype(&std::free)> shared;
  std::unique_ptr<Warp[]> warps;
  std::map<int, Barrier> named = {};  // of some threads each
  std::mutex mutex = {};

  void wait(int name, int count) {
    std::unique_lock<std::mutex> lock(mutex);
    Barrier& barrier = named.try_emplace(name, count).first->second;
    lock.unlock();
    barrier.arrive_and_wait();
  }
};

inline Block* block = nullptr;
inline bool without_barriers = false;                // the mistake that ThreadSanitizer must report
inline long tiled_launches = 0, other_launches = 0;  // with shared memory, and without

// The emulated device.
inline int shared_limit = 99 * 1024, multiprocessors = 4;
inline int architecture = 90;                   // that the kernels are said to be compiled for
inline std::map<void (*)(), size_t> asked_for;  // shared memory, by kernel
inline std::map<void (*)(), long> launches;

}  // namespace emulation

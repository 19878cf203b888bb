// Shares out tasks among threads on cores of different speeds: efficiency cores beside fast ones, or a core that
// another program uses too. With equal shares, all threads would wait for the slowest.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <atomic>
#include <vector>

#include "footprint.h"

namespace sa_layers::cpu {

struct TaskRange {
  uint32_t begin = 0, end = 0;
  int64_t count() const { return int64_t{end} - begin; }
};

// The tasks that a thread still has to do. The owner takes from the front, so that it reads on where it was; other
// threads take from the back. Aligned to a cache line of its own.
class alignas(64) TaskShare {
 public:
  void set(TaskRange range) { range_.store(range, std::memory_order_relaxed); }
  int64_t remaining() const { return range_.load(std::memory_order_relaxed).count(); }

  // Half of what remains, since one long range is cheaper than many short ones; at the end `min_count` tasks.
  TaskRange take_front(int64_t min_count) {
    return take([=](TaskRange range) { return max(min_count, (range.count() + 1) / 2); }, true);
  }
  TaskRange take_back(int64_t min_count) {
    return take([=](TaskRange range) { return max(min_count, range.count() / 2); }, false);
  }

 private:
  template <typename Size>
  TaskRange take(const Size& size, bool front) {
    TaskRange range = range_.load(std::memory_order_relaxed), taken, rest;
    do {
      const auto count = static_cast<uint32_t>(min(size(range), range.count()));
      taken = rest = range;
      (front ? taken.end : rest.end) = front ? range.begin + count : range.end - count;
      (front ? rest.begin : taken.begin) = front ? taken.end : rest.end;
    } while (!range_.compare_exchange_weak(range, rest, std::memory_order_relaxed));
    return taken;
  }

  std::atomic<TaskRange> range_{TaskRange{}};
};

// Calls kernel(first task, task after the last) until all tasks are done, in torch's threads; a call gets at least
// `grain` tasks where possible. The ranges differ from run to run: a result must not depend on how tasks are grouped.
template <typename Kernel>
void share_tasks(int64_t tasks, int64_t grain, const Kernel& kernel) {
  const int64_t threads = min(torch::stable::get_num_threads(), ceil_div(tasks, grain));
  if (threads <= 1 || tasks > INT32_MAX) return torch::stable::parallel_for(0, tasks, grain, kernel);
  std::vector<TaskShare> shares(threads);
  for (int64_t i = 0; i < threads; ++i) {
    shares[i].set({static_cast<uint32_t>(tasks * i / threads), static_cast<uint32_t>(tasks * (i + 1) / threads)});
  }
  torch::stable::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t own = first; own < last; ++own) {
      for (TaskRange range; (range = shares[own].take_front(grain)).count() > 0;) kernel(range.begin, range.end);
    }
    for (TaskRange range{0, 1}; range.count() > 0;) {
      int64_t slowest = 0;
      for (int64_t i = 1; i < threads; ++i) slowest = shares[i].remaining() > shares[slowest].remaining() ? i : slowest;
      range = shares[slowest].take_back(grain);
      if (range.count() > 0) kernel(range.begin, range.end);
    }
  });
}

}  // namespace sa_layers::cpu

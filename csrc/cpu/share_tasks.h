// Tasks shared out among threads whose cores differ in speed: efficiency cores beside fast ones, a core that another
// program uses too. Equal shares would all wait for the slowest.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <atomic>
#include <vector>

#include "cpu/element.h"

namespace sa_layers::cpu {

struct TaskRun {
  uint32_t begin = 0, end = 0;
  int64_t count() const { return int64_t{end} - begin; }
};

// The tasks that a thread has left. The owner takes from the front, so that it goes on where it was; others take from
// the back. In a line of the cache of its own.
class alignas(64) TaskShare {
 public:
  void set(TaskRun run) { run_.store(run, std::memory_order_relaxed); }
  int64_t left() const { return run_.load(std::memory_order_relaxed).count(); }

  // Half of what is left, since a run that goes on is cheaper than many; in the end, `least` tasks.
  TaskRun take_front(int64_t least) {
    return take([=](TaskRun run) { return larger(least, (run.count() + 1) / 2); }, true);
  }
  TaskRun take_back(int64_t least) {
    return take([=](TaskRun run) { return larger(least, run.count() / 2); }, false);
  }

 private:
  template <typename Size>
  TaskRun take(const Size& size, bool front) {
    TaskRun run = run_.load(std::memory_order_relaxed), taken, rest;
    do {
      const auto count = static_cast<uint32_t>(smaller(size(run), run.count()));
      taken = rest = run;
      (front ? taken.end : rest.end) = front ? run.begin + count : run.end - count;
      (front ? rest.begin : taken.begin) = front ? taken.end : rest.end;
    } while (!run_.compare_exchange_weak(run, rest, std::memory_order_relaxed));
    return taken;
  }

  std::atomic<TaskRun> run_{TaskRun{}};
};

// Calls kernel(first task, task after the last) until all tasks are done, in torch's threads; `grain` tasks are worth a
// call. The calls differ from time to time: results must not depend on how tasks are grouped.
template <typename Kernel>
void share_tasks(int64_t tasks, int64_t grain, const Kernel& kernel) {
  const int64_t threads = smaller(torch::stable::get_num_threads(), divide_up(tasks, grain));
  if (threads <= 1 || tasks > INT32_MAX) return torch::stable::parallel_for(0, tasks, grain, kernel);
  std::vector<TaskShare> shares(threads);
  for (int64_t i = 0; i < threads; ++i) {
    shares[i].set({static_cast<uint32_t>(tasks * i / threads), static_cast<uint32_t>(tasks * (i + 1) / threads)});
  }
  torch::stable::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t own = first; own < last; ++own) {
      for (TaskRun run; (run = shares[own].take_front(grain)).count() > 0;) kernel(run.begin, run.end);
    }
    for (TaskRun run{0, 1}; run.count() > 0;) {
      int64_t slowest = 0;
      for (int64_t i = 1; i < threads; ++i) slowest = shares[i].left() > shares[slowest].left() ? i : slowest;
      run = shares[slowest].take_back(grain);
      if (run.count() > 0) kernel(run.begin, run.end);
    }
  });
}

}  // namespace sa_layers::cpu

// What the check programs share: random problems, and a main function.
//   PROGRAM SEED PROBLEMS [without-barriers]
#pragma once

#include <cstdlib>

#include "buffer.h"
#include "reference.h"

namespace sa_layers::cuda {

// Calls body with an element of the type.
template <typename Body>
bool with_type(Element element, const Body& body) {
  switch (element) {
    case Element::kFloat32:
      return body(float{});
    case Element::kFloat64:
      return body(double{});
    case Element::kFloat16:
      return body(__half{});
    default:
      return body(__nv_bfloat16{});
  }
}

// The problem on a map of at most 9 x 9; also chooses a device, small or large, with tensor cores or without.
inline reference::Problem small_map(reference::Problem p) {
  p.height = (p.height - 1) % 9 + 1, p.width = (p.width - 1) % 9 + 1;
  const int limits[] = {2000, 8000, 48 * 1024, 99 * 1024, 227 * 1024}, multiprocessors[] = {1, 4, 40};
  emulation::shared_limit = limits[pick(0, 4)], emulation::multiprocessors = multiprocessors[pick(0, 2)];
  emulation::architecture = pick(0, 3) ? 90 : 75;
  return p;
}

inline reference::Problem random_problem() {
  reference::Problem p = {};
  p.batch = pick(0, 19) ? pick(1, 2) : 0;
  p.weight_channels = pick(1, 3);
  p.channels = p.weight_channels * pick(1, 9) + (pick(0, 3) ? 0 : pick(0, p.weight_channels - 1));
  p.height = pick(1, 20), p.width = pick(0, 1) ? 4 * pick(1, 5) : pick(1, 20);
  p.reflecting = pick(0, 1);
  const bool dense = pick(0, 2);
  for (int i = 0; i < 2; ++i) {
    p.kernel[i] = dense && i == 1 ? p.kernel[0] : 2 * pick(dense ? 1 : 0, 3) + 1;
    p.stride[i] = dense ? 1 : pick(1, 3), p.dilation[i] = dense ? 1 : pick(1, 3);
  }
  return p;
}

inline void describe(const reference::Problem& p, Element element, int shift) {
  std::printf(
      "batch %d, channels %d / %d, map %d x %d, kernel %d x %d, stride %d x %d, dilation %d x %d, %s, %s groups, "
      "type %d, shifted by %d\n",
      p.batch, p.channels, p.weight_channels, p.height, p.width, p.kernel[0], p.kernel[1], p.stride[0], p.stride[1],
      p.dilation[0], p.dilation[1],
      p.clamped      ? "clamp"
      : p.reflecting ? "reflect"
                     : "zeros",
      p.contiguous ? "contiguous" : "interleaved", int(element), shift);
}

// Calls check(problem, element, shift) for random problems, or for those given, and returns the number of failures.
template <typename Check>
int check_problem(const reference::Problem& p, Element element, int shift, const Check& check) {
  if (check(p, element, shift)) return 0;
  describe(p, element, shift);
  return 1;
}
template <typename Check>
int check_random_problems(int problems, const Check& check) {
  int failures = 0;
  for (int i = 0; i < problems; ++i) {
    const reference::Problem p = random_problem();
    const Element element = Element(pick(0, 3));
    failures += check_problem(p, element, pick(0, 3) % 2, check);
  }
  return failures;
}

// Calls check(number of problems), which returns the number of failures.
template <typename Check>
int run_checks(int argc, char** argv, const Check& check) {
  generator.seed(argc > 1 ? std::atoi(argv[1]) : 0);
  emulation::without_barriers = argc > 3;
  const int problems = argc > 2 ? std::atoi(argv[2]) : 50, failures = check(problems);
  std::printf("%d problems, %ld tiled launches, %ld other launches, %d failures\n", problems, emulation::tiled_launches,
              emulation::other_launches, failures);
  return failures > 0;
}

}  // namespace sa_layers::cuda

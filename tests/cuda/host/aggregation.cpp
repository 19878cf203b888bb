// Checks aggregation, softmax aggregation, pairwise relations and their gradients.
#include "check_aggregation.h"
#include "check_pairwise_relation.h"
#include "check_softmax_aggregation.h"
#include "cuda/aggregation/relation.cu"
#include "cuda/aggregation/select.cu"
#include "program.h"

namespace sa_layers::cuda {
namespace {

// Maps with several tiles, the last with tiles that must not be too small to fold; blocks of several small maps; more
// channels than fit.
const reference::Problem kSpecial[] = {
    {1, 8, 1, 23, 36, {7, 7}, {1, 1}, {1, 1}, true},   {1, 3, 1, 21, 39, {5, 5}, {1, 1}, {1, 1}, true},
    {1, 2, 1, 27, 44, {3, 3}, {1, 1}, {1, 1}, false},  {2, 520, 260, 3, 3, {3, 3}, {1, 1}, {1, 1}, true},
    {4, 260, 130, 2, 4, {3, 3}, {1, 1}, {1, 1}, true}, {1, 21, 1, 14, 14, {7, 7}, {1, 1}, {1, 1}, true},
    {1, 160, 1, 5, 4, {7, 7}, {1, 1}, {1, 1}, true},   {1, 1, 1, 6, 300, {3, 3}, {1, 1}, {1, 1}, true},
    {1, 1, 1, 11, 20, {7, 7}, {1, 1}, {1, 1}, true},
};

bool check_operators(const reference::Problem& p, Element element, int shift) {
  return with_type(element, [&](auto of_type) {
    using T = decltype(of_type);
    return check_aggregation<T>(p, element, shift) && check_pairwise_relation<T>(p, element, shift) &&
           (p.channels < p.weight_channels || check_softmax_aggregation<T>(p, element, shift));
  });
}

// With groups and padding modes that only these operators have.
reference::Problem vary(reference::Problem p) {
  p.contiguous = p.channels % p.weight_channels == 0 && pick(0, 1);
  p.clamped = pick(0, 2) == 0;
  if (p.clamped) {
    p.height = max(p.height, p.kernel[0] * p.dilation[0]), p.width = max(p.width, p.kernel[1] * p.dilation[1]);
  }
  return p;
}

int check_varied_problems(int problems) {
  int failures = 0;
  for (int i = 0; i < problems; ++i) {
    const reference::Problem p = vary(random_problem());
    failures += check_problem(p, Element(pick(0, 3)), pick(0, 3) % 2, check_operators);
  }
  return failures;
}

}  // namespace
}  // namespace sa_layers::cuda

int main(int argc, char** argv) {
  using namespace sa_layers::cuda;
  return run_checks(argc, argv, [](int problems) {
    int failures = check_varied_problems(problems);
    for (auto p : kSpecial) {
      failures += check_problem(p, Element::kFloat32, 0, check_operators);
      if (p.weight_channels == 1) continue;
      p.contiguous = true;
      failures += check_problem(p, Element::kFloat32, 0, check_operators);
    }
    return failures;
  });
}

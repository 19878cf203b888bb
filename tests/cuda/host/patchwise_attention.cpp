// Checks patchwise attention, in all its implementations.
#include "check_banded_patchwise.h"
#include "check_patchwise_attention.h"
#include "cuda/patchwise_attention/banded/launch.cu"
#include "cuda/patchwise_attention/fold.cu"
#include "cuda/patchwise_attention/select.cu"
#include "program.h"

namespace sa_layers::cuda {
namespace {

bool check_random_attention(const reference::Problem& p, Element element, int shift) {
  const PatchShape shape = random_patch();
  return with_type(element, [&](auto of_type) {
    if (check_patchwise_attention<decltype(of_type)>(small_map(p), shape, element, shift, pick(0, 1))) return true;
    describe(shape);
    return false;
  });
}

// Small attentions of every relation and type, whatever the random problems are.
bool check_every_mapping() {
  const reference::Problem p = {1, 6, 3, 2, 2, {3, 3}, {1, 1}, {1, 1}, true};
  for (const auto relation :
       {PatchwiseRelation::kConcatenation, PatchwiseRelation::kStar, PatchwiseRelation::kClique}) {
    for (const auto element : {Element::kFloat32, Element::kFloat64, Element::kFloat16, Element::kBFloat16}) {
      const PatchShape shape = {5, 6, 3, relation, false, false, 0, false};
      const bool agree = with_type(element, [&](auto of_type) {
        return check_patchwise_attention<decltype(of_type)>(small_map(p), shape, element, 0, false);
      });
      if (agree) continue;
      describe(shape);
      return false;
    }
  }
  return true;
}

}  // namespace
}  // namespace sa_layers::cuda

int main(int argc, char** argv) {
  using namespace sa_layers::cuda;
  return run_checks(argc, argv, [](int problems) {
    int failures = check_random_problems(problems, check_random_attention);
    failures +=
        !(check_patchwise_plans() && check_every_mapping() && check_san_patchwise() && check_patchwise_overflow());
    return failures + !check_banded_patchwise(problems > 0);  // problems of every width
  });
}

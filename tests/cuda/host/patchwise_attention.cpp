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

}  // namespace
}  // namespace sa_layers::cuda

int main(int argc, char** argv) {
  using namespace sa_layers::cuda;
  return run_checks(argc, argv, [](int problems) {
    int failures = check_random_problems(problems, check_random_attention);
    failures += !(check_patchwise_plans() && check_san_patchwise() && check_patchwise_overflow());
    return failures + !check_banded_patchwise(problems > 0);  // problems of every width
  });
}

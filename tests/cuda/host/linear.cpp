// Checks the norm with a ReLU, the poolings and the linear layer behind a norm.
#include "check_affine_relu.h"
#include "check_normed_projection.h"
#include "check_pooling.h"
#include "cuda/linear/affine_relu.cu"
#include "cuda/linear/normed_projection.cu"
#include "cuda/linear/pooling.cu"
#include "program.h"

namespace sa_layers::cuda {
namespace {

// Maps of the problem's size: channels in whole packs or not, one pack per thread or several.
template <typename T>
bool check_evaluation(const reference::Problem& p, Element element, int shift) {
  const Pooling pooling{pick(1, 2), p.height + 1, p.width + 1, pick(0, 2) ? 8 * pick(1, 3) : pick(1, 12)};
  const int inputs = pick(0, 2) ? 3 : pick(1, 5);
  const bool many = pick(0, 14) == 0, channels_last = pick(0, 1);
  const int64_t pixels = many ? 5000 : p.height * p.width, channels = many ? 128 : pooling.channels;
  if (check_affine_relu<T>(pixels, channels, element, shift) &&
      check_max_pooling<T>(pooling, element, shift, channels_last) &&
      check_pooled_projection<T>(pooling, inputs, channels_last, element, shift)) {
    return true;
  }
  std::printf("pixels %ld, channels %ld, pooling %ld x %ld x %ld x %ld, inputs %d, channels last %d\n", long(pixels),
              long(channels), long(pooling.batch), long(pooling.height), long(pooling.width), long(pooling.channels),
              inputs, channels_last);
  return false;
}

}  // namespace
}  // namespace sa_layers::cuda

int main(int argc, char** argv) {
  using namespace sa_layers::cuda;
  return run_checks(argc, argv, [](int problems) {
    const int failures = check_random_problems(problems, [](const auto& p, Element element, int shift) {
      return with_type(element, [&](auto of_type) { return check_evaluation<decltype(of_type)>(p, element, shift); });
    });
    return failures + !check_normed_projections(problems);
  });
}

// Runs the CUDA kernels' own source on the host and compares them with the reference, on random problems.
//   kernels_on_host SEED PROBLEMS [without-barriers]

#include <cstdlib>

#include "check_aggregation.h"
#include "check_banded_pairwise.h"
#include "check_banded_patchwise.h"
#include "check_evaluation.h"
#include "check_normed_projection.h"
#include "check_pairwise_attention.h"
#include "check_pairwise_relation.h"
#include "check_patchwise_attention.h"
#include "check_softmax_aggregation.h"
#include "cuda/affine_relu_kernels.cu"
#include "cuda/aggregation_kernels.cu"
#include "cuda/banded_pairwise_attention_kernels.cu"
#include "cuda/banded_patchwise_attention_kernels.cu"
#include "cuda/max_pooling_kernels.cu"
#include "cuda/normed_projection_kernels.cu"
#include "cuda/pairwise_attention_kernels.cu"
#include "cuda/pairwise_relation_kernels.cu"
#include "cuda/patchwise_attention_kernels.cu"
#include "cuda/pooled_projection_kernels.cu"
#include "cuda/softmax_aggregation_kernels.cu"

namespace sa_layers::cuda {
namespace {

template <typename T>
bool check_parts(const reference::Problem& p, Element element, int shift) {
  return check_aggregation<T>(p, element, shift) && check_pairwise_relation<T>(p, element, shift) &&
         (p.channels < p.weight_channels || check_softmax_aggregation<T>(p, element, shift)) &&
         check_evaluation<T>(p, element, shift);
}

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

bool check(const reference::Problem& p, Element element, int shift) {
  return with_type(element, [&](auto of_type) { return check_parts<decltype(of_type)>(p, element, shift); });
}

// On maps no larger than 9 x 9, and devices of much and little, with tensor cores and without.
reference::Problem small_map(reference::Problem p) {
  p.height = (p.height - 1) % 9 + 1, p.width = (p.width - 1) % 9 + 1;
  const int limits[] = {2000, 8000, 48 * 1024, 99 * 1024, 227 * 1024}, multiprocessors[] = {1, 4, 40};
  emulation::shared_limit = limits[pick(0, 4)], emulation::multiprocessors = multiprocessors[pick(0, 2)];
  emulation::architecture = pick(0, 3) ? 90 : 75;
  return p;
}

bool check_attentions(const reference::Problem& p, Element element, int shift) {
  const AttentionShape pairwise = random_attention();
  const PatchShape patchwise = random_patch();
  const bool allow_tf32 = pick(0, 1);
  return with_type(element, [&](auto of_type) {
    using T = decltype(of_type);
    const bool agree = check_pairwise_attention<T>(small_map(p), pairwise, element, shift, allow_tf32);
    if (!agree) describe(pairwise);
    if (check_patchwise_attention<T>(small_map(p), patchwise, element, shift, allow_tf32)) return agree;
    describe(patchwise);
    return false;
  });
}

reference::Problem random_problem() {
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

// Maps that are cut into several tiles, the last one where tiles must not be cut too small to fold; maps so many and
// small that blocks take several; more channels than fit.
const reference::Problem kSpecial[] = {
    {1, 8, 1, 23, 36, {7, 7}, {1, 1}, {1, 1}, true},   {1, 3, 1, 21, 39, {5, 5}, {1, 1}, {1, 1}, true},
    {1, 2, 1, 27, 44, {3, 3}, {1, 1}, {1, 1}, false},  {2, 520, 260, 3, 3, {3, 3}, {1, 1}, {1, 1}, true},
    {4, 260, 130, 2, 4, {3, 3}, {1, 1}, {1, 1}, true}, {1, 21, 1, 14, 14, {7, 7}, {1, 1}, {1, 1}, true},
    {1, 160, 1, 5, 4, {7, 7}, {1, 1}, {1, 1}, true},   {1, 1, 1, 6, 300, {3, 3}, {1, 1}, {1, 1}, true},
    {1, 1, 1, 11, 20, {7, 7}, {1, 1}, {1, 1}, true},
};

// The first and the last stage of SAN: weights that stay in shared memory, and such that come in slices.
bool check_san_attention() {
  for (const int channels : {4, 128}) {
    const int side = channels == 4 ? 9 : 3, kernel = channels == 4 ? 3 : 5;
    const reference::Problem p = {2, 4 * channels, channels / 2, side, side, {kernel, kernel}, {1, 1}, {1, 1}, true};
    const AttentionShape shape = {channels, 4 * channels,
                                  2,        {channels + 2, channels, channels / 2},
                                  2,        Relation::kSubtraction,
                                  {0, 0},   true,
                                  true,     0,
                                  false};
    for (const int limit : {99 * 1024, 227 * 1024}) {
      emulation::shared_limit = limit, emulation::multiprocessors = 1, emulation::architecture = 90;
      if (check_pairwise_attention<__half>(p, shape, Element::kFloat16, 0)) continue;
      describe(shape);
      return false;
    }
  }
  return true;
}

// Features that float16 has no room for are no NaN.
bool check_overflow() {
  const reference::Problem p = {1, 8, 2, 4, 4, {3, 3}, {1, 1}, {1, 1}, true};
  const AttentionShape shape = {8, 8, 3, {8, 24, 24, 2}, 0, Relation::kSubtraction, {0, 0}, false, false, 0, true};
  emulation::architecture = 90;
  return check_pairwise_attention<__half>(p, shape, Element::kFloat16, 0);
}

void describe(const reference::Problem& p, Element element, int shift) {
  std::printf(
      "batch %d, channels %d / %d, map %d x %d, kernel %d x %d, stride %d x %d, dilation %d x %d, %s, type %d, "
      "shifted by %d\n",
      p.batch, p.channels, p.weight_channels, p.height, p.width, p.kernel[0], p.kernel[1], p.stride[0], p.stride[1],
      p.dilation[0], p.dilation[1], p.reflecting ? "reflect" : "zeros", int(element), shift);
}

}  // namespace
}  // namespace sa_layers::cuda

int main(int argc, char** argv) {
  using namespace sa_layers::cuda;
  generator.seed(argc > 1 ? std::atoi(argv[1]) : 0);
  emulation::without_barriers = argc > 3;
  const int random_problems = argc > 2 ? std::atoi(argv[2]) : 50, specials = int(std::size(kSpecial));
  int failures = 0;
  for (int i = 0; i < random_problems + specials; ++i) {
    const bool special = i >= random_problems;
    const reference::Problem p = special ? kSpecial[i - random_problems] : random_problem();
    const Element element = special ? Element::kFloat32 : Element(pick(0, 3));
    const int shift = special ? 0 : pick(0, 3) % 2;
    bool good = check(p, element, shift);
    if (!special) good = check_attentions(p, element, shift) && good;
    if (good) continue;
    describe(p, element, shift);
    ++failures;
  }
  if (!check_plans() || !check_san_attention() || !check_overflow()) ++failures;
  const int banded_problems = random_problems > 0;  // of every width
  if (!check_banded_pairwise(banded_problems) || !check_banded_patchwise(banded_problems)) ++failures;
  if (!check_normed_projections((random_problems + 3) / 4)) ++failures;
  if (!check_patchwise_plans() || !check_san_patchwise() || !check_patchwise_overflow()) ++failures;
  std::printf("%d problems, %ld tiled launches, %ld other launches, %d failures\n", random_problems + specials,
              emulation::tiled_launches, emulation::other_launches, failures);
  return failures > 0;
}

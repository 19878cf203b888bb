// Checks pairwise attention, in all its implementations.
#include "check_banded_pairwise.h"
#include "check_pairwise_attention.h"
#include "cuda/pairwise_attention/banded/launch.cu"
#include "cuda/pairwise_attention/fold.cu"
#include "cuda/pairwise_attention/select.cu"
#include "program.h"

namespace sa_layers::cuda {
namespace {

bool check_random_attention(const reference::Problem& p, Element element, int shift) {
  const AttentionShape shape = random_attention();
  return with_type(element, [&](auto of_type) {
    if (check_pairwise_attention<decltype(of_type)>(small_map(p), shape, element, shift, pick(0, 1))) return true;
    describe(shape);
    return false;
  });
}

// The first and the last stage of SAN: with resident weights, and with weights in slices.
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

// Small attentions with mappings of every depth and type, whatever the random problems are.
bool check_every_mapping() {
  const reference::Problem p = {1, 6, 3, 2, 2, {3, 3}, {1, 1}, {1, 1}, true};
  for (const int layers : {1, 2, 3}) {
    for (const auto element : {Element::kFloat32, Element::kFloat64, Element::kFloat16, Element::kBFloat16}) {
      AttentionShape shape = {5, 6, layers, {5, 7, 4}, 0, Relation::kSubtraction, {0, 0}, false, false, 0, false};
      shape.widths[layers] = 3;
      const bool agree = with_type(element, [&](auto of_type) {
        return check_pairwise_attention<decltype(of_type)>(small_map(p), shape, element, 0);
      });
      if (agree) continue;
      describe(shape);
      return false;
    }
  }
  return true;
}

// Features beyond the range of float16 do not become NaN.
bool check_overflow() {
  const reference::Problem p = {1, 8, 2, 4, 4, {3, 3}, {1, 1}, {1, 1}, true};
  const AttentionShape shape = {8, 8, 3, {8, 24, 24, 2}, 0, Relation::kSubtraction, {0, 0}, false, false, 0, true};
  emulation::architecture = 90;
  return check_pairwise_attention<__half>(p, shape, Element::kFloat16, 0);
}
}  // namespace
}  // namespace sa_layers::cuda

int main(int argc, char** argv) {
  using namespace sa_layers::cuda;
  return run_checks(argc, argv, [](int problems) {
    int failures = check_random_problems(problems, check_random_attention);
    failures += !(check_plans() && check_every_mapping() && check_san_attention() && check_overflow());
    return failures + !check_banded_pairwise(problems > 0);  // problems of every width
  });
}

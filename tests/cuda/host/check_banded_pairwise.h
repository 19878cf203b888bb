// Pairwise attention of SAN's widths in half precision, which the banded kernels compute.
#pragma once

#include <tuple>

#include "check_pairwise_attention.h"
#include "cuda/pairwise_attention/banded/kernel.cuh"

namespace sa_layers::cuda {

inline AttentionShape san_shape(int channels, int weight_channels) {
  AttentionShape shape = {};
  shape.channels = channels, shape.value_channels = 8 * weight_channels, shape.layers = 2;
  shape.positions = 2 - pick(0, 4) / 2, shape.relation = pick(0, 1) ? Relation::kSubtraction : Relation::kSummation;
  shape.widths[0] = channels + shape.positions, shape.widths[1] = channels, shape.widths[2] = weight_channels;
  if (pick(0, 2) == 0) shape.position_size[0] = pick(2, 9), shape.position_size[1] = pick(2, 9);
  shape.epilogue = pick(0, 1), shape.merged = pick(0, 2), shape.gap = 8 * pick(0, 1);
  return shape;
}

// The number of launches of these kernels.
template <typename T, typename... Mappings>
long launches_of(std::tuple<Mappings...>) {
  const auto count = [](auto* kernel) { return emulation::launches[reinterpret_cast<void (*)()>(kernel)]; };
  return (... +
          (count(&banded_pairwise_attention_tiles<T, Mappings, 0>) +
           (Mappings::kUsualWidth ? count(&banded_pairwise_attention_tiles<T, Mappings, Mappings::kUsualWidth>) : 0)));
}
template <typename T>
long banded_launches() {
  return launches_of<T>(std::tuple<BandedMapping<4, 2>, BandedMapping<16, 8>, BandedMapping<32, 16>,
                                   BandedMapping<64, 16>, BandedMapping<128, 16>>());
}

template <typename T>
bool check_banded_width(Element element, int channels, int problems) {
  for (int i = 0; i < problems; ++i) {
    const int weights = channels == 4 ? 2 : channels / 2, most = channels > 32 ? 7 : 19;
    reference::Problem p = {pick(1, 2), 8 * weights, weights, pick(1, most), pick(1, most), {}, {1, 1}, {1, 1}, true};
    p.kernel[0] = 2 * pick(0, channels > 32 ? 2 : 4) + 1, p.kernel[1] = 2 * pick(0, 4) + 1, p.reflecting = pick(0, 1);
    AttentionShape shape = san_shape(channels, weights);
    shape.steepness = std::is_same_v<T, __half> && pick(0, 1) ? 12 : 1, shape.roundings = 3;
    const int multiprocessors[] = {1, 4, 40};
    emulation::shared_limit = (pick(0, 1) ? 227 : channels < 128 ? 99 : 163) * 1024, emulation::architecture = 90;
    emulation::multiprocessors = multiprocessors[pick(0, 2)];
    const long before = banded_launches<T>();
    if (check_pairwise_attention<T>(p, shape, element, 0) && banded_launches<T>() > before) continue;
    describe(shape);
    std::printf("map %d x %d, kernel %d x %d, %s, %ld banded launches\n", p.height, p.width, p.kernel[0], p.kernel[1],
                p.reflecting ? "reflect" : "zeros", banded_launches<T>() - before);
    return false;
  }
  return true;
}

// The emulation of wide layers takes long, so these are checked with one type, chosen at random.
inline bool check_banded_pairwise(int problems) {
  for (const int channels : {4, 16, 32, 64, 128}) {
    const bool is_wide = channels > 32, first = pick(0, 1);
    if ((!is_wide || first) && !check_banded_width<__half>(Element::kFloat16, channels, problems)) return false;
    if ((!is_wide || !first) && !check_banded_width<__nv_bfloat16>(Element::kBFloat16, channels, problems))
      return false;
  }
  return true;
}

}  // namespace sa_layers::cuda

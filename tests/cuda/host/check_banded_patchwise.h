// Patchwise attention of SAN's widths in half precision, which the banded kernels compute.
#pragma once

#include "check_patchwise_attention.h"
#include "cuda/patchwise_attention/banded/kernel.cuh"

namespace sa_layers::cuda {

// The number of launches of these kernels.
template <typename T, typename Patches>
long banded_patch_launches() {
  const auto count = [](auto* kernel) { return emulation::launches[reinterpret_cast<void (*)()>(kernel)]; };
  return count(&banded_patchwise_attention_tiles<0, T, Patches>) +
         count(&banded_patchwise_attention_tiles<Patches::kUsualWidth, T, Patches>);
}

template <typename T, typename Patches>
bool check_banded_patches(Element element, int problems) {
  constexpr bool kWide = Patches::kChannels > 32;
  for (int i = 0; i < problems; ++i) {
    const int weights = Patches::kWeights, most = kWide ? 7 : 19, usual = Patches::kUsualWidth;
    reference::Problem p = {pick(1, 2), 8 * weights, weights, pick(1, most), pick(1, most), {}, {1, 1}, {1, 1}, true};
    p.kernel[0] = 2 * pick(0, kWide ? 2 : 4) + 1, p.kernel[1] = pick(0, 1) ? usual : 2 * pick(0, 4) + 1;
    p.reflecting = pick(0, 1);
    const PatchShape shape = {
        Patches::kChannels, 8 * weights, weights, PatchwiseRelation::kConcatenation, pick(0, 1) > 0, pick(0, 2) > 0,
        8 * pick(0, 1),     false,       3};
    const int multiprocessors[] = {1, 4, 40};
    emulation::shared_limit = (pick(0, 1) ? 99 : 227) * 1024, emulation::architecture = 90;
    emulation::multiprocessors = multiprocessors[pick(0, 2)];
    const long before = banded_patch_launches<T, Patches>();
    const bool agree = check_patchwise_attention<T>(p, shape, element, 0, false);
    if (agree && banded_patch_launches<T, Patches>() > before) continue;
    describe(shape);
    std::printf("map %d x %d, kernel %d x %d, %s, %ld banded launches\n", p.height, p.width, p.kernel[0], p.kernel[1],
                p.reflecting ? "reflect" : "zeros", banded_patch_launches<T, Patches>() - before);
    return false;
  }
  return true;
}

// The emulation of wide layers takes long, so these are checked with one type, chosen at random.
template <typename Patches>
bool check_banded_patches(int problems) {
  const bool both = Patches::kChannels <= 32, first = pick(0, 1);
  return ((!both && !first) || check_banded_patches<__half, Patches>(Element::kFloat16, problems)) &&
         ((!both && first) || check_banded_patches<__nv_bfloat16, Patches>(Element::kBFloat16, problems));
}

inline bool check_banded_patchwise(int problems) {
  return check_banded_patches<BandedPatches<4, 2>>(problems) && check_banded_patches<BandedPatches<16, 8>>(problems) &&
         check_banded_patches<BandedPatches<32, 16>>(problems) &&
         check_banded_patches<BandedPatches<64, 32>>(problems) &&
         check_banded_patches<BandedPatches<128, 64>>(problems);
}

}  // namespace sa_layers::cuda

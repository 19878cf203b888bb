// Packs the left factor of a product, rows of pixels, into InterleavedRows.
#if defined(SA_LAYERS_CPU_LINEAR_PACKING_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_LINEAR_PACKING_H
#undef SA_LAYERS_CPU_LINEAR_PACKING_H
#else
#define SA_LAYERS_CPU_LINEAR_PACKING_H
#endif

#include "cpu/linear/matrix_product.h"
#include "cpu/linear/problem.h"
#include "cpu/simd/transpose.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Calls read(channel, lanes) for the vectors of some channels.
template <typename Read>
ALWAYS_INLINE void for_each_vector(int64_t channels, const Read& read) {
  int64_t c = 0;
  for (; c + kLanes<float> <= channels; c += kLanes<float>) read(c, AllLanes{});
  if (c < channels) read(c, SomeLanes{0, channels - c});
}

// Stores a vector of a row; the column is a multiple of its lanes.
ALWAYS_INLINE void store_interleaved(float* row, int64_t column, Vector<float> from) {
#if SA_LAYERS_TARGET != SA_LAYERS_BASELINE
  store_every_fourth(from, kLanes<float>, row + InterleavedRows::left(0, column), kBlockRows);
#else
  store(row + InterleavedRows::left(0, column), from);
#endif
}

// Calls read(i, row) for the rows of the left factor.
template <typename Read>
ALWAYS_INLINE void for_each_row(float* rows, int64_t count, const Read& read) {
  for (int64_t first = 0; first < count; first += kBlockRows, rows += InterleavedRows::kBlock) {
    const int64_t last = min(first + kBlockRows, count);
    for (int64_t i = first; i < last; ++i) read(i, rows + InterleavedRows::left(i - first, 0));
  }
}

// Packs some channels of some pixels, after the norm and the ReLU.
inline void pack_activations(const Activations& activations, int64_t pixel, int64_t count, int64_t channel,
                             int64_t depth, float* rows) {
  const bool normalises = activations.scale != nullptr;
  const float* scale = normalises ? activations.scale + channel : nullptr;
  const float* shift = normalises ? activations.shift + channel : nullptr;
  for_each_row(rows, count, [&](int64_t i, float* row) ALWAYS_INLINE_LAMBDA {
    const float* from = activations.pixels + (pixel + i) * activations.stride + channel;
    for_each_vector(depth, [&](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
      Vector<float> features = load(from + c, lanes);
      __builtin_prefetch(from + kBlockRows * activations.stride + c);  // of the next block, early enough
      if (normalises) features = relu(load(scale + c, lanes) * features + load(shift + c, lanes));
      store_interleaved(row, c, features);
    });
  });
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_LINEAR_PACKING_H

// The mapping with channels in the lanes: its packed weights, and linear layers of pairs that are the rows of a matrix.
#if defined(SA_LAYERS_CPU_PAIRWISE_ATTENTION_MAPPING_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_ATTENTION_MAPPING_H
#undef SA_LAYERS_CPU_PAIRWISE_ATTENTION_MAPPING_H
#else
#define SA_LAYERS_CPU_PAIRWISE_ATTENTION_MAPPING_H
#endif

#include "cpu/pairwise_attention/problem.h"
#include "cpu/simd/transpose.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// A block of accumulators fills the registers: kRowBlock rows of kVectorBlock vectors, or twice the rows of half the
// vectors.
#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
constexpr int kRowBlock = 7, kVectorBlock = 4;
#else
constexpr int kRowBlock = 6, kVectorBlock = 2;
#endif

// A layer's output count, padded to whole vectors. In the last layer it is also a multiple of the output count.
template <typename T>
int64_t padded_width(const PairwiseAttention& problem, int64_t layer) {
  const int64_t width = problem.widths[layer + 1];
  if (layer + 1 < problem.layers) return round_up(width, kLanes<T>);
  int64_t padded = width;
  while (padded % kLanes<T> != 0) padded += width;
  return padded;
}

// The softmax is in base 2, exp(x) = 2^(x log2(e)), and the last layer includes the factor.
template <typename T>
Compute<T> scale_of_layer(const PairwiseAttention& problem, int64_t layer) {
  return layer + 1 == problem.layers ? static_cast<Compute<T>>(1.4426950408889634) : 1;
}

template <typename T>
void pack_bias(const PairwiseAttention& problem, int64_t layer, const MappingLayer<Compute<T>>& from,
               Compute<T>* padded, int64_t* width) {
  const int64_t outputs = problem.widths[layer + 1];
  const bool repeat = layer + 1 == problem.layers;
  *width = padded_width<T>(problem, layer);
  const Compute<T> scale = scale_of_layer<T>(problem, layer);
  for (int64_t j = 0; j < *width; ++j) {
    const int64_t output = j % outputs;
    const Compute<T> bias =
        from.next_scale ? from.bias[output] * from.next_scale[output] + from.next_shift[output] : from.bias[output];
    padded[j] = repeat || j < outputs ? scale * bias : 0;
  }
}

// From a weight (output, input) of any strides to [input][padded output].
template <typename T>
void pack_weight(const PairwiseAttention& problem, int64_t layer, const MappingLayer<Compute<T>>& from,
                 Compute<T>* padded) {
  const int64_t outputs = problem.widths[layer + 1], width = padded_width<T>(problem, layer);
  const bool repeat = layer + 1 == problem.layers;
  const Compute<T> scale = scale_of_layer<T>(problem, layer);
  if (from.input_stride == 1) {
    to_planes(from.weight, from.output_stride, outputs, problem.widths[layer], padded, width);
  } else {
    for (int64_t i = 0; i < problem.widths[layer]; ++i) {
      for (int64_t j = 0; j < outputs; ++j) {
        padded[i * width + j] = from.weight[j * from.output_stride + i * from.input_stride];
      }
    }
  }
  for (int64_t i = 0; i < problem.widths[layer]; ++i, padded += width) {
    for (int64_t j = 0; j < outputs; ++j) padded[j] *= from.next_scale ? from.next_scale[j] : scale;
    for (int64_t j = outputs; j < width; ++j) padded[j] = repeat ? padded[j - outputs] : 0;
  }
}

template <int kRows, int kVectors, bool kRelu, typename C>
ALWAYS_INLINE void multiply_block(const C* rows, int64_t row_size, int64_t depth, const C* weight, int64_t width,
                                  const C* bias, C* output) {
  Vector<C> sums[kRows][kVectors];
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[r][v] = load(bias + v * kLanes<C>);
  }
  // A pointer for each group of rows: the distances of more rows from one pointer would not fit the registers.
  constexpr int kGroup = 5;
  const C* groups[(kRows + kGroup - 1) / kGroup];
#pragma GCC unroll 3
  for (int g = 0; g * kGroup < kRows; ++g) {
    groups[g] = rows + g * kGroup * row_size;
    asm("" : "+r"(groups[g]));
  }
  for (int64_t i = 0; i < depth; ++i) {
    Vector<C> weights[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) weights[v] = load(weight + i * width + v * kLanes<C>);
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
      const C feature = groups[r / kGroup][r % kGroup * row_size + i];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[r][v] += feature * weights[v];
    }
  }
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      store(output + r * width + v * kLanes<C>, kRelu ? relu(sums[r][v]) : sums[r][v]);
    }
  }
}

// All rows, a multiple of kRowBlock, times a few vectors of outputs.
template <int kVectors, bool kRelu, typename C>
void multiply_columns(const C* rows, int64_t row_size, int64_t row_count, int64_t depth, const C* weight, int64_t width,
                      const C* bias, C* output) {
  int64_t r = 0;
  if constexpr (2 * kVectors <= kVectorBlock) {
    for (; r + 2 * kRowBlock <= row_count; r += 2 * kRowBlock) {
      multiply_block<2 * kRowBlock, kVectors, kRelu>(rows + r * row_size, row_size, depth, weight, width, bias,
                                                     output + r * width);
    }
  }
  for (; r < row_count; r += kRowBlock) {
    multiply_block<kRowBlock, kVectors, kRelu>(rows + r * row_size, row_size, depth, weight, width, bias,
                                               output + r * width);
  }
}

// output = rows * weight + bias, with a ReLU if kRelu.
template <bool kRelu, typename C>
void multiply(const C* rows, int64_t row_size, int64_t row_count, int64_t depth, const C* weight, int64_t width,
              const C* bias, C* output) {
  const auto columns = [&](auto vectors, int64_t j) ALWAYS_INLINE_LAMBDA {
    multiply_columns<vectors.value, kRelu>(rows, row_size, row_count, depth, weight + j, width, bias + j, output + j);
  };
  int64_t j = 0;
  if constexpr (kVectorBlock >= 4) {
    for (; j + 4 * kLanes<C> <= width; j += 4 * kLanes<C>) columns(Constant<4>{}, j);
  }
  for (; j + 2 * kLanes<C> <= width; j += 2 * kLanes<C>) columns(Constant<2>{}, j);
  if (j < width) columns(Constant<1>{}, j);
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_ATTENTION_MAPPING_H

// The hidden layer of the mapping with pixels in the lanes, for few weights: vectors hold neighbouring pixels of one
// channel, read from planes that are copied out of the maps. A tile is a band of rows.
#if defined(SA_LAYERS_CPU_PATCHWISE_ATTENTION_HIDDEN_PIXEL_LANES_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PATCHWISE_ATTENTION_HIDDEN_PIXEL_LANES_H
#undef SA_LAYERS_CPU_PATCHWISE_ATTENTION_HIDDEN_PIXEL_LANES_H
#else
#define SA_LAYERS_CPU_PATCHWISE_ATTENTION_HIDDEN_PIXEL_LANES_H
#endif

#include "cpu/aggregation/band.h"
#include "cpu/patchwise_attention/problem.h"
#include "cpu/simd/vector.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// A single element, for maps with too few channels for vectors.
template <typename T>
ALWAYS_INLINE float element(const T* from) {
  return load_one(from);
}
ALWAYS_INLINE float element(const BFloat16* from) { return bit_cast<float>(uint32_t{from->bits} << 16); }

// planes[c] = the band's padded rows of channel c.
template <typename T>
void copy_planes(const Band& band, const BandTables& tables, const ChannelsLast<const T>& map, int64_t channels,
                 float* planes) {
  const int64_t width = band.footprint.columns.size;
  for (int64_t row = 0; row < band.padded_rows; ++row, planes += band.row_size) {
    const int64_t map_row = band.map_row(row);
    for (int64_t position = 0; position < band.row_size; ++position) {
      const int64_t column = tables.map_columns[position];
      const bool is_inside = map_row >= 0 && column >= 0;
      const T* from = map.data + (is_inside ? (map_row * width + column) * map.pixel_stride : 0);
      for (int64_t c = 0; c < channels; ++c) planes[c * band.size() + position] = is_inside ? element(from + c) : 0;
    }
  }
}

// planes[c] = channel c of the band's centres, in rows of row_size.
template <typename T>
void copy_centres(const Band& band, const ChannelsLast<const T>& map, int64_t channels, int64_t row_size,
                  float* planes) {
  const Axis &rows = band.footprint.rows, &columns = band.footprint.columns;
  const int64_t plane_size = (band.row_end - band.row_begin) * row_size;
  for (int64_t row = band.row_begin; row < band.row_end; ++row, planes += row_size) {
    const T* from = map.data + row * rows.stride * columns.size * map.pixel_stride;
    for (int64_t column = 0; column < columns.output_size(); ++column, from += columns.stride * map.pixel_stride) {
      for (int64_t c = 0; c < channels; ++c) planes[c * plane_size + column] = element(from + c);
    }
  }
}

// For kVectors vectors of pixels: sums[n] += weight[n] * relu(scale * feature + shift).
template <int kWeights, int kVectors>
ALWAYS_INLINE void add_feature(const float* features, float scale, float shift, const float* weight,
                               Vector<float> (&sums)[kVectors][kWeights]) {
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const Vector<float> feature = relu(load(features + v * kLanes<float>) * scale + shift);
#pragma GCC unroll 4
    for (int n = 0; n < kWeights; ++n) sums[v][n] += feature * weight[n];
  }
}

template <int kWeights, typename T>
void compute_hidden_band(const PatchwiseOperands<T>& operands, const Band& band, float* hidden) {
  constexpr int kVectors = 2;
  constexpr int64_t kPixels = kVectors * kLanes<float>;
  const PatchwiseMapping& mapping = operands.mapping;
  const int64_t channels = operands.problem.relation_channels, width = band.footprint.columns.output_size();
  const int64_t centre_row = ceil_div(width, kPixels) * kPixels, rows = band.row_end - band.row_begin;
  const BandTables tables(band);
  const Scratch<float> keys(channels * band.size() + kPixels), centres(channels * rows * centre_row);
  copy_planes(band, tables, operands.key, channels, keys.data());
  copy_centres(band, operands.query, channels, centre_row, centres.data());

  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < width; column += kPixels, hidden += kPixels * kWeights) {
      Vector<float> sums[kVectors][kWeights];
      for (int v = 0; v < kVectors; ++v) {
        for (int n = 0; n < kWeights; ++n) sums[v][n] = broadcast<float>(mapping.hidden_bias[n]);
      }
      const float *scale = mapping.scale, *shift = mapping.shift, *weight = mapping.hidden_weight;
      const auto add_tap = [&](const float* features, int64_t plane_size) ALWAYS_INLINE_LAMBDA {
        for (int64_t c = 0; c < channels; ++c, features += plane_size, weight += kWeights) {
          add_feature<kWeights, kVectors>(features, *scale++, *shift++, weight, sums);
        }
      };
      add_tap(centres.data() + row * centre_row + column, rows * centre_row);
      for (int64_t i = 0; i < band.footprint.rows.kernel; ++i) {
        for (int64_t j = 0; j < band.footprint.columns.kernel; ++j) {
          const int64_t position = row * band.row_stride + i * band.tap_stride + tables.offsets(0)[j] + column;
          add_tap(keys.data() + position, band.size());
        }
      }
      float pixels[kWeights][kPixels];
      for (int n = 0; n < kWeights; ++n) {
        for (int v = 0; v < kVectors; ++v) store(pixels[n] + v * kLanes<float>, sums[v][n]);
      }
      const int64_t count = min(kPixels, width - column);
      for (int64_t p = 0; p < count; ++p) {
        for (int n = 0; n < kWeights; ++n) hidden[p * kWeights + n] = pixels[n][p];
      }
      hidden -= (kPixels - count) * kWeights;
    }
  }
}

template <typename T>
void compute_hidden_pixel_lanes(const PatchwiseOperands<T>& operands, int64_t pixel_begin, int64_t pixel_end,
                                float* hidden) {
  const Footprint& footprint = operands.problem.footprint;
  const int64_t width = footprint.columns.output_size();
  const Band band(footprint, pixel_begin / width, pixel_end / width, kLanes<T>);
  switch (operands.problem.weight_channels) {
    case 1:
      return compute_hidden_band<1>(operands, band, hidden);
    case 2:
      return compute_hidden_band<2>(operands, band, hidden);
    case 3:
      return compute_hidden_band<3>(operands, band, hidden);
    default:
      return compute_hidden_band<4>(operands, band, hidden);
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_ATTENTION_HIDDEN_PIXEL_LANES_H

// The passes of pairwise attention in training: the problem as the kernels see it. Maps are channels last, and may be
// slices of a wider map's channels.
#pragma once

#include "cpu/pairwise_attention/problem.h"
#include "cpu/runtime/element.h"

namespace sa_layers::cpu {

// A map, or a slice of its channels.
template <typename T>
struct MapView {
  T* data;
  MapStrides strides;

  T* row(int64_t image, int64_t y) const { return data + image * strides.image + y * strides.row; }
};

// Rows of an image's output, begin <= row < end, and the rows of its map that their footprints read.
struct Band {
  int64_t image, begin, end;
  int64_t first_row, last_row;  // of the map, the last exclusive

  int64_t rows() const { return last_row - first_row; }
};

// The pairs of a pixel and its neighbours are the rows of small matrices. Their columns are the features of a pair:
// those of the relation, then those of the position unless the position depends on the offset between the pixels only,
// in which case its part of a product is a table with a row for each offset.
struct PairwiseTraining {
  Footprint footprint;
  Relation relation;
  int64_t batch, channels, value_channels, positions;
  int64_t hidden, weight_channels;  // 1 in passes without
  bool by_offset;
  DistinctPixelsOfAxis rows_read, columns_read;
  int64_t lanes;  // of a vector

  int64_t relation_channels() const {
    if (relation == Relation::kDot) return 1;
    return relation == Relation::kConcatenation ? 2 * channels : channels;
  }
  int64_t features() const { return relation_channels() + positions; }
  bool is_difference() const { return !is_product(relation); }

  // Columns of the matrix of pairs. Products of query and key, and differences, have vectors of their own.
  int64_t first_position() const {
    return is_difference() ? relation_channels() : round_up(relation_channels(), lanes);
  }
  int64_t columns() const { return positions == 0 || by_offset ? relation_channels() : first_position() + positions; }
  int64_t padded_columns() const { return round_up(columns(), lanes); }
  int64_t column_of(int64_t feature) const {
    return feature < relation_channels() ? feature : first_position() + feature - relation_channels();
  }
  int64_t padded_hidden() const { return round_up(hidden, lanes); }
  // Logits are repeated until vectors of weights match vectors of the value.
  int64_t padded_weights() const {
    int64_t width = weight_channels;
    while (width % lanes != 0) width += weight_channels;
    return width;
  }
  int64_t padded_value() const { return round_up(value_channels, lanes); }

  // Columns of what is kept of a pixel: as of a pair, but for a dot product the channels of query and key.
  int64_t map_first_position() const {
    return relation == Relation::kDot ? round_up(channels, lanes) : first_position();
  }
  int64_t map_columns() const {
    if (relation != Relation::kDot) return padded_columns();
    return round_up(channels, lanes) + (by_offset ? 0 : round_up(positions, lanes));
  }
  // Where the key's channels begin.
  int64_t key_column() const { return relation == Relation::kConcatenation ? channels : 0; }
  double key_sign() const { return relation == Relation::kSubtraction ? -1.0 : 1.0; }

  int64_t offsets() const { return by_offset ? row_offsets() * column_offsets() : 1; }
  int64_t row_offsets() const { return 2 * footprint.rows.padding() + 1; }
  int64_t column_offsets() const { return 2 * footprint.columns.padding() + 1; }
  int64_t width() const { return footprint.columns.output_size(); }
  int64_t height() const { return footprint.rows.output_size(); }
  double pairs() const { return static_cast<double>(batch * footprint.output_pixels() * footprint.taps()); }

  // Bands depend on the size of the problem only, so that results do not depend on the number of threads. There are
  // some for every thread, and what is kept of their pixels fits the cache, but for those of a few rows.
  int64_t band_rows() const {
    constexpr int64_t kBands = 32, kMinRows = 7, kNumbers = 80'000;
    const int64_t bands = ceil_div(kBands, max(int64_t{1}, batch));
    const int64_t of_row = footprint.rows.stride * footprint.columns.size * (2 * map_columns() + padded_value());
    return min(height(), max(kMinRows, min(ceil_div(height(), bands), kNumbers / of_row)));
  }
  int64_t bands_of_image() const { return ceil_div(height(), band_rows()); }
  int64_t bands() const { return batch * bands_of_image(); }
  Band band(int64_t index) const {
    const int64_t image = index / bands_of_image(), begin = index % bands_of_image() * band_rows();
    const int64_t end = min(begin + band_rows(), height());
    const Axis& rows = footprint.rows;
    return {image, begin, end, max(int64_t{0}, begin * rows.stride - rows.padding()),
            min(rows.size, (end - 1) * rows.stride + rows.padding() + 1)};
  }
  // How many bands of an image read a row of the map, and the first of them.
  int64_t readers(int64_t row, int64_t* first) const {
    int64_t count = 0;
    for (int64_t i = 0; i < bands_of_image(); ++i) {
      const Band band = this->band(i);
      if (row < band.first_row || row >= band.last_row) continue;
      if (count++ == 0) *first = i;
    }
    return count;
  }
  int64_t max_window_rows() const {
    return min(footprint.rows.size, (band_rows() - 1) * footprint.rows.stride + footprint.rows.reach() + 1);
  }
  // The pixels of a band's rows of the map, followed by a padded zero.
  int64_t window_pixels() const { return max_window_rows() * footprint.columns.size + 1; }

  // The pairs that are mapped together, as few incomplete blocks of rows as possible.
  int64_t max_block_pairs() const {
    constexpr int64_t kMostPairs = 128, kRows = 14;
    const int64_t taps = footprint.taps();
    int64_t best = 1;
    for (int64_t pixels = 2; pixels * taps <= kMostPairs; ++pixels) {
      if (round_up(pixels * taps, kRows) * best <= round_up(best * taps, kRows) * pixels) best = pixels;
    }
    return best * taps;
  }
};

// The parameters of a call, folded and padded. A feature before the ReLU is scale * r + shift; a centre may be
// subtracted from it.
template <typename C>
struct PairParameters {
  // Of every column of a pair, whose feature is max(scale * r + shift, floor).
  const C *scale, *shift, *floor;
  // Of every column of a pixel: what (query - query_center) * query_scale is added to.
  const C* pixel_shift;
  // Of every channel: (key - key_center) * key_scale is what a pair's feature is computed from.
  const C *query_center, *query_scale, *key_center, *key_scale;
  // Position features in columns, of (x, y, 1): (positions, 3), scaled and shifted; the coordinates along both axes.
  const double *query_position, *key_position, *row_coordinates, *column_coordinates;
  // Of every channel: from sums over pairs to gradients of the maps.
  const C *query_factor, *key_factor;
  // The layers, [input][padded output]: W1 with the second norm's scale, its summands by offset, and W2, with the
  // factor of a softmax in base 2; then both for the backward pass, [output][padded input].
  const C *weight1, *summand1, *weight2, *weight1_backward, *weight2_backward;
};

// The maps of a call; a pass reads and writes some of them.
template <typename T>
struct TrainingMaps {
  MapView<const T> query, key, value, grad_output;
  MapView<T> output, grad_query, grad_key, grad_value;
  Compute<T>* logsumexp;  // contiguous
  // Sums of neighbours in the windows of all bands, of which rows that several bands read are used.
  Compute<T>*key_windows, *value_windows;
  bool accumulate;  // gradients
};

// Where a band's sums, in float64, are in its part of a buffer.
struct SumsLayout {
  int64_t by_offset, products, weight2, features, query_moments, key_moments, position, size;

  // `width` is that of the rows by offset, `left` and `right` the sizes of the matrix of products.
  SumsLayout(const PairwiseTraining& problem, int64_t width, int64_t left, int64_t right, bool with_weight2) {
    by_offset = 0;
    products = by_offset + problem.offsets() * width;
    weight2 = products + left * right;
    features = weight2 + (with_weight2 ? problem.weight_channels * problem.padded_hidden() : 0);
    query_moments = features + problem.padded_columns();
    key_moments = query_moments + problem.channels;
    position = key_moments + problem.channels;
    size = position + 6 * kMaxPositions;
  }
};

}  // namespace sa_layers::cpu

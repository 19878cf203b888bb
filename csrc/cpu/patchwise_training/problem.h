// Patchwise attention in training: the passes as the kernels see them.
//
//     z      = sum over taps and channels of weight1 * relu(scale1 * feature + shift1)           (hidden.h)
//     output = sum over taps of (bias2 + weight2 * relu(scale2 * z + shift2)) * value             (weighted_sum.h)
//
// and the backward passes of the two. All products have pixels in the rows of their left factor, which is formed a tile
// of pixels and a panel of columns at a time, and never written to memory as a whole. A column is a tap with one of its
// channels: of the features (tap 0 is the query, then the taps of the key) or of the weights. Channels come in slices
// of one vector, which are independent of each other in the backward passes.
#pragma once

#include "cpu/runtime/element.h"
#include "footprint.h"

namespace sa_layers::cpu {

// Pixels of a tile, and the distance between the rows of a tile's buffers: a constant, so that rows need no registers
// for their addresses; no power of two, so that rows do not compete for one set of the cache.
constexpr int64_t kTilePixels = 28, kTileDepth = 160, kTileStride = kTileDepth + 16;
constexpr int64_t kBandPixels = 1024;  // of a band, more or less: float32 sums over so many are accurate

// A channels-last map whose pixels are pixel_stride elements apart.
template <typename T>
struct PixelMap {
  T* data;
  int64_t pixel_stride;
};

// The columns of a product: in each slice of the channels, panels of some taps, in each the channels of every tap.
struct Columns {
  int64_t taps, channels, lanes;
  int64_t width;       // columns of a tap: a vector, or all channels if these fill less than one
  int64_t slices;      // of `width` channels
  int64_t panel_taps;  // but for the last panel
  int64_t panels, panel_vectors;

  // Few channels are stored without padding if `packs`.
  // Panels have a multiple of `unit` taps, if so many fit a tile.
  Columns(int64_t taps, int64_t channels, int64_t lanes, bool packs, int64_t max_depth, int64_t unit = 1)
      : taps(taps),
        channels(channels),
        lanes(lanes),
        width(packs ? channels : lanes),
        slices(packs ? 1 : ceil_div(channels, lanes)),
        panel_taps(unit * width > kTileDepth ? divide(taps, max_depth / width)
                                             : unit * divide(taps / unit, max_depth / (unit * width))),
        panels(ceil_div(taps, panel_taps)),
        panel_vectors(ceil_div(panel_taps * width, lanes)) {}

  // `count` in equal parts of at most `most`, or of one.
  static int64_t divide(int64_t count, int64_t most) { return ceil_div(count, ceil_div(count, max(1, most))); }
  bool is_packed() const { return width != lanes; }
  int64_t vectors() const { return panels * panel_vectors; }  // of a slice
  int64_t slice_columns() const { return vectors() * lanes; }
  int64_t panel_columns() const { return panel_vectors * lanes; }
  int64_t size() const { return slices * slice_columns(); }
  int64_t slice_channels(int64_t slice) const { return min(width, channels - slice * width); }
  int64_t taps_of(int64_t panel) const { return min(panel_taps, taps - panel * panel_taps); }
  int64_t vectors_of(int64_t panel) const { return ceil_div(taps_of(panel) * width, lanes); }
  // Of a tap and a channel of a slice.
  int64_t column(int64_t tap, int64_t channel) const {
    return tap / panel_taps * panel_vectors * lanes + tap % panel_taps * width + channel;
  }
};

// The outputs of a product with few columns: if they fill a part of a vector, several rows of the matrix share one.
struct Outputs {
  int64_t count, lanes;
  int64_t period;  // rows of the matrix in a vector

  Outputs(int64_t count, int64_t lanes) : count(count), lanes(lanes), period(1) {
    while (count * period * 2 <= lanes) period *= 2;
  }
  int64_t vectors() const { return ceil_div(count, lanes); }
  int64_t size() const { return vectors() * lanes; }
};

// The elements of the matrix with a row for each column of a slice, and the outputs.
inline int64_t outputs_size(const Columns& columns, const Outputs& outputs) {
  return columns.slice_columns() * outputs.size() / outputs.period;
}

// Some rows of the output of an image, the rows of the map that their taps read, and those of them that no other band
// of the image reads.
struct RowBand {
  int64_t image, row_begin, row_end, source_begin, source_end, own_begin, own_end;

  int64_t rows() const { return row_end - row_begin; }
  int64_t source_rows() const { return source_end - source_begin; }
};

// The bands of all images. Their number depends on the sizes alone, so results do not depend on the number of threads.
// A task has one band of an image, or some small images. If an image is one band, this reads all rows of the map.
class RowBands {
 public:
  RowBands(const Footprint& footprint, int64_t batch)
      : rows_(ceil_div(footprint.rows.output_size(), wanted(footprint))),
        max_pixels(rows_ * footprint.columns.output_size()),
        of_image(ceil_div(footprint.rows.output_size(), rows_)),
        of_task(of_image > 1 ? 1 : max(1, kBandPixels / max_pixels)),
        count(batch * of_image),
        bands_(of_image) {
    for (int64_t i = 0; i < of_image; ++i) {
      bands_.data()[i] = make(footprint, i);
      max_source_rows = max(max_source_rows, bands_.data()[i].source_rows());
    }
    for (int64_t i = 0; i < of_image; ++i) find_own_rows(i);
  }

 private:
  int64_t rows_;

 public:
  const int64_t max_pixels, of_image, of_task, count;
  int64_t max_source_rows = 0;

  int64_t tasks() const { return ceil_div(count, of_task); }
  RowBand operator[](int64_t index) const {
    RowBand band = bands_.data()[index % of_image];
    band.image = index / of_image;
    return band;
  }

 private:
  static int64_t wanted(const Footprint& footprint) {
    return max(1, ceil_div(footprint.output_pixels(), kBandPixels + kBandPixels / 4));
  }

  RowBand make(const Footprint& footprint, int64_t index) const {
    const Axis& rows = footprint.rows;
    RowBand band{0, index * rows_, min((index + 1) * rows_, rows.output_size()), rows.size, 0, 0, 0};
    if (of_image == 1) return {0, 0, rows.output_size(), 0, rows.size, 0, rows.size};
    for (int64_t row = band.row_begin; row < band.row_end; ++row) {
      for (int64_t tap = 0; tap < rows.kernel; ++tap) {
        const int64_t pixel = rows.pixel(rows.padded(row, tap), footprint.mode);
        if (pixel < 0) continue;
        band.source_begin = min(band.source_begin, pixel), band.source_end = max(band.source_end, pixel + 1);
      }
    }
    return band;
  }

  void find_own_rows(int64_t index) {
    RowBand& band = bands_.data()[index];
    band.own_begin = band.source_begin, band.own_end = band.source_end;
    for (int64_t i = 0; i < of_image; ++i) {
      const RowBand& other = bands_.data()[i];
      if (i == index || other.source_end <= band.own_begin || other.source_begin >= band.own_end) continue;
      if (other.source_begin <= band.own_begin) {
        band.own_begin = min(other.source_end, band.own_end);
      } else if (other.source_end >= band.own_end) {
        band.own_end = other.source_begin;
      } else {
        band.own_end = band.own_begin;
      }
    }
  }

  Scratch<RowBand> bands_;
};

// The passes of the hidden layer.
struct HiddenProblem {
  HiddenProblem(const Footprint& footprint, int64_t batch, int64_t channels, int64_t weight_channels, int64_t lanes)
      : footprint(footprint),
        batch(batch),
        channels(channels),
        weight_channels(weight_channels),
        columns(footprint.taps() + 1, channels, lanes, channels < lanes, kTileDepth),
        outputs(weight_channels, lanes),
        bands(footprint, batch) {}

  Footprint footprint;
  int64_t batch, channels, weight_channels;
  Columns columns;
  Outputs outputs;
  RowBands bands;

  int64_t features() const { return columns.taps * channels; }
  // The elements of the features that a band reads: its rows of the key, a pixel of zeros, the centres of the query.
  int64_t region_size() const {
    const int64_t pixels = bands.max_source_rows * footprint.columns.size + 1 + bands.max_pixels;
    return round_up(pixels * columns.width, columns.lanes);
  }
  // The sums over pixels of a task: for the columns of its slice those of the weight, totals and moments.
  int64_t sums_size() const { return columns.slice_columns() * (weight_channels + 2); }
  // The feature of a tap and a channel, in the order of modules: the taps of a channel of the key follow each other.
  int64_t feature(int64_t tap, int64_t channel) const {
    return tap == 0 ? channel : channels + channel * (columns.taps - 1) + tap - 1;
  }
};

// The passes of the weighted sum. Weights are packed if they divide a vector.
struct WeightedSumProblem {
  WeightedSumProblem(const Footprint& footprint, int64_t batch, int64_t channels, int64_t weight_channels,
                     int64_t lanes)
      : footprint(footprint),
        batch(batch),
        channels(channels),
        weight_channels(weight_channels),
        columns(footprint.taps(), weight_channels, lanes, weight_channels < lanes && lanes % weight_channels == 0,
                /*max_depth=*/112, footprint.columns.kernel),
        outputs(weight_channels, lanes),
        bands(footprint, batch) {}

  Footprint footprint;
  int64_t batch, channels, weight_channels;
  Columns columns;
  Outputs outputs;
  RowBands bands;

  // Whether tap j of an output pixel reads what tap j - 1 of the next one reads, and panels have whole rows of taps.
  bool neighbours_overlap() const {
    const Axis& axis = footprint.columns;
    return axis.stride == axis.dilation && columns.panel_taps % axis.kernel == 0;
  }
  // The vectors of the value's channels that use a slice of the weights.
  int64_t value_vectors() const {
    return columns.is_packed() ? ceil_div(channels, columns.lanes) : channels / weight_channels;
  }
  // The elements of a slice of the weight.
  int64_t matrix_size() const { return columns.slice_columns() * weight_channels; }
  // The first output pixel of a band, counted through all images.
  int64_t pixel_of(const RowBand& band) const {
    return band.image * footprint.output_pixels() + band.row_begin * footprint.columns.output_size();
  }
  // The elements of the values that a band reads: its rows of the map and a pixel of zeros.
  int64_t region_size() const {
    return (bands.max_source_rows * footprint.columns.size + 1) * value_vectors() * columns.lanes;
  }
  // The sums over pixels of a task: for the columns of its slice those of the weight and the bias.
  int64_t sums_size() const { return columns.slice_columns() * (weight_channels + 1); }
  // The weight of a tap, in the order of modules.
  int64_t weight(int64_t tap, int64_t channel) const { return channel * columns.taps + tap; }
};

// The gradient of a map, which tasks sum over bands of its rows. A task stores the rows that its band alone reads, and
// leaves the others in a workspace, from which `add_bands` adds them.
template <typename T>
struct MapGradient {
  PixelMap<T> map;
  Compute<T>* workspace;  // region_size for every slice and band, or null
  int64_t region_size;

  Compute<T>* region(const RowBands& bands, int64_t slice, int64_t band) const {
    return workspace + (slice * bands.count + band) * region_size;
  }
};

// What both passes of the hidden layer read. Parameters are those of modules, in the compute dtype; pack_hidden writes
// the packed ones.
template <typename T>
struct HiddenOperands {
  const HiddenProblem& problem;
  PixelMap<const T> query, key;
  const Compute<T>*scale, *shift, *weight;  // (F,), (F,), (Cw, F)
  Compute<T>*packed_scale, *packed_shift, *packed_weight;
};

// What the backward pass reads and writes besides.
template <typename T>
struct HiddenGradients {
  const Compute<T>* grad_z;       // (N, Ho, Wo, Cw)
  const Compute<T>* packed_mean;  // as the packed scale
  // Of every task: the sums for the columns of its slice, [vector][weight channel][lane], then totals and moments.
  Compute<T>* sums;
  PixelMap<T> query;
  MapGradient<T> key;
};

// The same for the weighted sum; pack_weighted_sum writes the packed parameters.
template <typename T>
struct WeightedSumOperands {
  const WeightedSumProblem& problem;
  const Compute<T>* z;  // (N, Ho, Wo, Cw)
  PixelMap<const T> value;
  const Compute<T>*scale, *shift, *weight, *bias;  // (Cw,), (Cw,), (Cw * taps, Cw), (Cw * taps,)
  Compute<T>*packed_weight, *packed_bias;
  Compute<T>* packed_outputs;  // the weight with the hidden channels as outputs; null in the forward pass
};

template <typename T>
struct WeightedSumGradients {
  PixelMap<const T> output;
  Compute<T>* hidden;  // (slices, N, Ho, Wo, Cw)
  // Of every task: the sums for the columns of its slice, [vector][hidden channel][lane], then their totals.
  Compute<T>* sums;
  MapGradient<T> value;
};

// Query or key by rows, how often each of `taps` taps along an axis reads a column, (taps, width), and for the backward
// pass (2, height, taps, channels) coefficients and the gradient.
template <typename T>
struct NormedMap {
  PixelMap<const T> pixels;
  int64_t batch, height, width, channels, taps;
  const double *columns, *coefficients;
  PixelMap<T> gradient;

  const T* row(int64_t image, int64_t row) const {
    return pixels.data + (image * height + row) * width * pixels.pixel_stride;
  }
};

}  // namespace sa_layers::cpu

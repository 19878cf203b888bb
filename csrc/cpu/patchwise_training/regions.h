// Regions: the pixels of a map that a band of rows reads, copied in the dtype of computation, with the channels that a
// task needs. Gradients of a map are summed in regions of the same shape.
#if defined(SA_LAYERS_CPU_PATCHWISE_TRAINING_REGIONS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PATCHWISE_TRAINING_REGIONS_H
#undef SA_LAYERS_CPU_PATCHWISE_TRAINING_REGIONS_H
#else
#define SA_LAYERS_CPU_PATCHWISE_TRAINING_REGIONS_H
#endif

#include "cpu/patchwise_training/problem.h"
#include "cpu/simd/vector.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Channels of a map as vectors of a region: vector v holds `count` channels from begin + v * step on, the last vector
// `last_count`. If `is_packed`, a pixel of the region has `count` elements instead of whole vectors.
struct ChannelVectors {
  int64_t begin, step, vectors, count, last_count;
  bool is_packed;

  int64_t count_of(int64_t vector) const { return vector + 1 < vectors ? count : last_count; }
  int64_t pixel_size(int64_t lanes) const { return is_packed ? count : vectors * lanes; }
};

// A slice of the relation's channels.
inline ChannelVectors slice_of(const HiddenProblem& problem, int64_t slice) {
  const Columns& columns = problem.columns;
  const int64_t count = columns.slice_channels(slice);
  return {slice * columns.width, 0, 1, count, count, columns.is_packed()};
}

// The value's channels that use a slice of the weights.
inline ChannelVectors slice_of(const WeightedSumProblem& problem, int64_t slice) {
  const Columns& columns = problem.columns;
  const int64_t vectors = problem.value_vectors(), lanes = columns.lanes;
  if (columns.is_packed()) return {0, lanes, vectors, lanes, problem.channels - (vectors - 1) * lanes, false};
  const int64_t count = columns.slice_channels(slice);
  return {slice * lanes, problem.weight_channels, vectors, count, count, false};
}

// region[pixel] = map[pixel], for `pixels` pixels that are pixel_stride elements apart. Unused lanes are zero.
template <typename T>
void copy_pixels(const T* from, int64_t pixel_stride, int64_t pixels, const ChannelVectors& channels,
                 Compute<T>* region) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t size = channels.pixel_size(lanes);
  from += channels.begin;
  if (channels.is_packed) {
    const SomeLanes some{0, channels.count};
    // Stores of whole vectors, whose unused lanes the next pixel overwrites; not for the last ones.
    const int64_t whole = max(0, pixels - ceil_div(lanes, size));
    for (int64_t pixel = 0; pixel < pixels; ++pixel, from += pixel_stride, region += size) {
      if (pixel < whole) {
        store(region, load(from, some));
      } else {
        store(region, load(from, some), some);
      }
    }
    return;
  }
  for (int64_t pixel = 0; pixel < pixels; ++pixel, from += pixel_stride, region += size) {
    for (int64_t v = 0; v < channels.vectors; ++v) {
      const int64_t count = channels.count_of(v);
      if (count == lanes) {
        store(region + v * lanes, load(from + v * channels.step));
      } else {
        store(region + v * lanes, load(from + v * channels.step, SomeLanes{0, count}));
      }
    }
  }
}

// to[pixel] = sum of the regions at this pixel, in their order.
template <typename T>
void store_pixels(const Compute<T>* const* regions, int64_t region_count, int64_t pixels,
                  const ChannelVectors& channels, T* to, int64_t pixel_stride) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t size = channels.pixel_size(lanes);
  to += channels.begin;
  for (int64_t pixel = 0; pixel < pixels; ++pixel, to += pixel_stride) {
    for (int64_t v = 0; v < channels.vectors; ++v) {
      const int64_t count = channels.count_of(v), at = pixel * size + v * lanes;
      T* const target = to + v * channels.step;
      if (count == lanes) {
        Vector<T> sum = load(regions[0] + at);
        for (int64_t i = 1; i < region_count; ++i) sum += load(regions[i] + at);
        store(target, sum);
      } else {
        const SomeLanes some{0, count};
        Vector<T> sum = load(regions[0] + at, some);
        for (int64_t i = 1; i < region_count; ++i) sum += load(regions[i] + at, some);
        store(target, sum, some);
      }
    }
  }
}

template <typename C>
void fill_with_zeros(C* to, int64_t count) {
  __builtin_memset(static_cast<void*>(to), 0, count * sizeof(C));
}

// The sources of the taps of a band's pixels, as offsets into its region: sources[tap * tap_stride + pixel *
// pixel_stride]. Padded zeros read the pixel after the last one of the region.
inline void list_sources(const Footprint& footprint, const RowBand& band, int64_t pixel_size, int32_t* sources,
                         int64_t tap_stride, int64_t pixel_stride) {
  const Axis &rows = footprint.rows, &columns = footprint.columns;
  const int64_t width = columns.size, outside = band.source_rows() * width;
  for (int64_t i = 0; i < rows.kernel; ++i) {
    for (int64_t j = 0; j < columns.kernel; ++j, sources += tap_stride) {
      int32_t* to = sources;
      for (int64_t y = band.row_begin; y < band.row_end; ++y) {
        const int64_t row = rows.pixel(rows.padded(y, i), footprint.mode);
        for (int64_t x = 0; x < columns.output_size(); ++x, to += pixel_stride) {
          const int64_t column = columns.pixel(columns.padded(x, j), footprint.mode);
          const bool is_inside = row >= 0 && column >= 0;
          const int64_t pixel = is_inside ? (row - band.source_begin) * width + column : outside;
          *to = static_cast<int32_t>(pixel * pixel_size);
        }
      }
    }
  }
}

// Adds the bands of the rows begin <= row < end, counted through all images and slices.
template <typename T, typename Problem>
void add_bands(const Problem& problem, const MapGradient<T>& gradient, int64_t begin, int64_t end) {
  const RowBands& bands = problem.bands;
  const int64_t height = problem.footprint.rows.size, width = problem.footprint.columns.size;
  const Scratch<const Compute<T>*> regions(bands.of_image);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t slice = task / (problem.batch * height), image = task / height % problem.batch, row = task % height;
    const ChannelVectors channels = slice_of(problem, slice);
    const int64_t row_size = width * channels.pixel_size(kLanes<T>);
    int64_t count = 0;
    for (int64_t i = 0; i < bands.of_image; ++i) {
      const RowBand band = bands[image * bands.of_image + i];
      if (row < band.source_begin || row >= band.source_end) continue;
      regions.data()[count++] =
          gradient.region(bands, slice, image * bands.of_image + i) + (row - band.source_begin) * row_size;
    }
    T* const to = gradient.map.data + (image * height + row) * width * gradient.map.pixel_stride;
    if (count > 0) {
      store_pixels(regions.data(), count, width, channels, to, gradient.map.pixel_stride);
    } else {  // between the taps of a stride or dilation
      const Scratch<Compute<T>> zeros(row_size + kLanes<T>);
      fill_with_zeros(zeros.data(), row_size);
      regions.data()[0] = zeros.data();
      store_pixels(regions.data(), 1, width, channels, to, gradient.map.pixel_stride);
    }
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_TRAINING_REGIONS_H

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
  // The first vectors that hold as many channels as they have lanes.
  int64_t full_vectors(int64_t lanes) const { return count < lanes ? 0 : last_count < lanes ? vectors - 1 : vectors; }
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

// Some numbers, fewer than a vector: kCount of them, or with kCount 0 as many as a call says.
template <typename C, int kCount>
struct Few {
  // In this order, so that the compiler keeps kCount numbers in a register.
  C numbers[kCount == 0 ? kLanes<C> : kCount];

  static Few load(const C* from, int64_t count) {
    Few few{};
    if constexpr (kCount == 0) {
      for (int64_t i = 0; i < count; ++i) few.numbers[i] = from[i];
    } else {
      __builtin_memcpy(few.numbers, from, sizeof(few.numbers));
    }
    return few;
  }
  void store(C* to, int64_t count) const {
    if constexpr (kCount == 0) {
      for (int64_t i = 0; i < count; ++i) to[i] = numbers[i];
    } else {
      __builtin_memcpy(to, numbers, sizeof(numbers));
    }
  }
  void add(const Few& other, int64_t count) {
    const int64_t end = kCount == 0 ? count : kCount;
    for (int64_t i = 0; i < end; ++i) numbers[i] += other.numbers[i];
  }
};

// Calls body(Constant<count>) for counts below the lanes that have code of their own, otherwise body(Constant<0>).
template <typename C, typename Body>
ALWAYS_INLINE void with_count(int64_t count, const Body& body) {
  if constexpr (kLanes<C> > 4) {
    if (count == 4) return body(Constant<4>{});
  }
  if constexpr (kLanes<C> > 8) {
    if (count == 8) return body(Constant<8>{});
  }
  body(Constant<0>{});
}

// region[pixel] = map[pixel], for `pixels` pixels that are pixel_stride elements apart. Unused lanes are zero.
template <typename T>
void copy_pixels(const T* from, int64_t pixel_stride, int64_t pixels, const ChannelVectors& channels,
                 Compute<T>* region) {
  using C = Compute<T>;
  constexpr int64_t lanes = kLanes<T>;
  const int64_t size = channels.pixel_size(lanes);
  from += channels.begin;
  if (channels.is_packed) {
    return with_count<C>(channels.count, [&](auto constant) ALWAYS_INLINE_LAMBDA {
      constexpr int kCount = decltype(constant)::value;
      for (int64_t pixel = 0; pixel < pixels; ++pixel, from += pixel_stride, region += size) {
        if constexpr (sizeof(T) == sizeof(C)) {
          Few<C, kCount>::load(reinterpret_cast<const C*>(from), size).store(region, size);
        } else {
          T few[lanes] = {};
          __builtin_memcpy(few, from, (kCount == 0 ? size : kCount) * sizeof(T));
          C numbers[lanes];
          store(numbers, load(few));
          Few<C, kCount>::load(numbers, size).store(region, size);
        }
      }
    });
  }
  const int64_t full = channels.full_vectors(lanes);
  for (int64_t p = 0; p < pixels; ++p, from += pixel_stride, region += size) {
    for (int64_t v = 0; v < full; ++v) store(region + v * lanes, load(from + v * channels.step));
    for (int64_t v = full; v < channels.vectors; ++v) {
      store(region + v * lanes, load(from + v * channels.step, SomeLanes{0, channels.count_of(v)}));
    }
  }
}

// to[pixel] = sum of the regions at this pixel, in their order.
template <typename T>
void store_pixels(const Compute<T>* const* regions, int64_t region_count, int64_t pixels,
                  const ChannelVectors& channels, T* to, int64_t pixel_stride) {
  using C = Compute<T>;
  constexpr int64_t lanes = kLanes<T>;
  const int64_t size = channels.pixel_size(lanes);
  to += channels.begin;
  if (channels.is_packed) {
    return with_count<C>(channels.count, [&](auto constant) ALWAYS_INLINE_LAMBDA {
      constexpr int kCount = decltype(constant)::value;
      for (int64_t at = 0; at < pixels * size; at += size, to += pixel_stride) {
        auto sum = Few<C, kCount>::load(regions[0] + at, size);
        for (int64_t i = 1; i < region_count; ++i) sum.add(Few<C, kCount>::load(regions[i] + at, size), size);
        if constexpr (sizeof(T) == sizeof(C)) {
          sum.store(reinterpret_cast<C*>(to), size);
        } else {
          C numbers[lanes] = {};
          sum.store(numbers, size);
          T few[lanes];
          store(few, load(numbers));
          __builtin_memcpy(to, few, (kCount == 0 ? size : kCount) * sizeof(T));
        }
      }
    });
  }
  const int64_t full = channels.full_vectors(lanes);
  const auto store_vector = [=](int64_t at, T* target, auto some) ALWAYS_INLINE_LAMBDA {
    Vector<T> sum = load(regions[0] + at, some);
    for (int64_t i = 1; i < region_count; ++i) sum += load(regions[i] + at, some);
    store(target, sum, some);
  };
  for (int64_t at = 0; at < pixels * size; at += size, to += pixel_stride) {
    for (int64_t v = 0; v < full; ++v) store_vector(at + v * lanes, to + v * channels.step, AllLanes{});
    for (int64_t v = full; v < channels.vectors; ++v) {
      store_vector(at + v * lanes, to + v * channels.step, SomeLanes{0, channels.count_of(v)});
    }
  }
}

template <typename C>
void fill_with_zeros(C* to, int64_t count) {
  __builtin_memset(static_cast<void*>(to), 0, count * sizeof(C));
}

// Where the taps of a footprint read along an axis, as offsets: offsets[tap * tap_stride + position * position_stride].
// Padded zeros are so negative that any sum with them is.
inline void list_offsets(const Axis& axis, Padding mode, int64_t begin, int64_t end, int64_t first, int64_t step,
                         int32_t* offsets, int64_t tap_stride, int64_t position_stride) {
  constexpr int32_t kOutside = -(1 << 30);
  for (int64_t tap = 0; tap < axis.kernel; ++tap) {
    for (int64_t position = begin; position < end; ++position) {
      const int64_t pixel = axis.pixel(axis.padded(position, tap), mode);
      offsets[tap * tap_stride + (position - begin) * position_stride] =
          pixel < 0 ? kOutside : static_cast<int32_t>((pixel - first) * step);
    }
  }
}

// The sources of the taps of a band's pixels, as offsets into its region: sources[pixel][tap], or sources[tap][pixel]
// if tap_stride is not 1. Padded zeros read the pixel after the last one of the region. Writes up to a vector past the
// end.
inline void list_sources(const Footprint& footprint, const RowBand& band, int64_t pixel_size, int32_t* sources,
                         int64_t tap_stride) {
  constexpr int64_t lanes = kLanes<float>;
  const Axis &rows = footprint.rows, &columns = footprint.columns;
  const int64_t width = columns.output_size(), row_taps = rows.kernel, column_taps = columns.kernel;
  const auto outside = static_cast<int32_t>(band.source_rows() * columns.size * pixel_size);
  const Scratch<int32_t> of_rows(band.rows() * row_taps), of_columns(width * column_taps + lanes);
  list_offsets(rows, footprint.mode, band.row_begin, band.row_end, band.source_begin, columns.size * pixel_size,
               of_rows.data(), 1, row_taps);
  const bool taps_follow = tap_stride == 1;
  list_offsets(columns, footprint.mode, 0, width, 0, pixel_size, of_columns.data(), taps_follow ? 1 : width,
               taps_follow ? column_taps : 1);
  for (int64_t i = 0; i < lanes; ++i) of_columns.data()[width * column_taps + i] = 0;
  // What is written past the end of a run is overwritten by the next one.
  const auto add = [=](int32_t row, const int32_t* column, int64_t count, int32_t* to) ALWAYS_INLINE_LAMBDA {
    for (int64_t i = 0; i < count; i += lanes) {
      Bits offsets;
      __builtin_memcpy(&offsets, column + i, sizeof(offsets));
      offsets += row;
      const Bits is_outside = offsets < 0;
      offsets = (is_outside & outside) | (~is_outside & offsets);
      __builtin_memcpy(to + i, &offsets, sizeof(offsets));
    }
  };
  if (taps_follow) {
    for (int64_t y = 0; y < band.rows(); ++y) {
      for (int64_t x = 0; x < width; ++x) {
        for (int64_t i = 0; i < row_taps; ++i, sources += column_taps) {
          add(of_rows.data()[y * row_taps + i], of_columns.data() + x * column_taps, column_taps, sources);
        }
      }
    }
    return;
  }
  for (int64_t i = 0; i < row_taps; ++i) {
    for (int64_t j = 0; j < column_taps; ++j, sources += tap_stride) {
      for (int64_t y = 0; y < band.rows(); ++y) {
        add(of_rows.data()[y * row_taps + i], of_columns.data() + j * width, width, sources + y * width);
      }
    }
  }
}

// Stores the gradients of a band, or leaves them in the workspace.
template <typename T, typename Problem>
void store_band(const Problem& problem, const MapGradient<T>& gradient, int64_t slice, int64_t index,
                const Compute<T>* region) {
  const RowBand band = problem.bands[index];
  const int64_t height = problem.footprint.rows.size, width = problem.footprint.columns.size;
  const ChannelVectors channels = slice_of(problem, slice);
  const int64_t row_size = width * channels.pixel_size(kLanes<T>);
  const int64_t begin = band.own_begin - band.source_begin, end = band.own_end - band.source_begin;
  const Compute<T>* const own = region + begin * row_size;
  T* const to = gradient.map.data + (band.image * height + band.own_begin) * width * gradient.map.pixel_stride;
  store_pixels(&own, 1, (end - begin) * width, channels, to, gradient.map.pixel_stride);
  if (problem.bands.of_image == 1) return;
  Compute<T>* const workspace = gradient.region(problem.bands, slice, index);
  const auto leave = [&](int64_t first, int64_t last) {
    __builtin_memcpy(workspace + first * row_size, region + first * row_size,
                     (last - first) * row_size * sizeof(Compute<T>));
  };
  leave(0, begin), leave(end, band.source_rows());
}

// Adds what bands left in the workspace, for the rows begin <= row < end, counted through all images and slices.
template <typename T, typename Problem>
void add_bands(const Problem& problem, const MapGradient<T>& gradient, int64_t begin, int64_t end) {
  const RowBands& bands = problem.bands;
  const int64_t height = problem.footprint.rows.size, width = problem.footprint.columns.size;
  const Scratch<const Compute<T>*> regions(bands.of_image + 1);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t slice = task / (problem.batch * height), image = task / height % problem.batch, row = task % height;
    const ChannelVectors channels = slice_of(problem, slice);
    const int64_t row_size = width * channels.pixel_size(kLanes<T>);
    int64_t count = 0;
    bool is_stored = false;
    for (int64_t i = 0; i < bands.of_image; ++i) {
      const RowBand band = bands[image * bands.of_image + i];
      if (row < band.source_begin || row >= band.source_end) continue;
      is_stored = row >= band.own_begin && row < band.own_end;
      regions.data()[count++] =
          gradient.region(bands, slice, image * bands.of_image + i) + (row - band.source_begin) * row_size;
    }
    if (is_stored) continue;
    const Scratch<Compute<T>> zeros(count == 0 ? row_size : 0);
    if (count == 0) {  // between the taps of a stride or dilation
      fill_with_zeros(zeros.data(), row_size);
      regions.data()[count++] = zeros.data();
    }
    T* const to = gradient.map.data + (image * height + row) * width * gradient.map.pixel_stride;
    store_pixels(regions.data(), count, width, channels, to, gradient.map.pixel_stride);
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_TRAINING_REGIONS_H

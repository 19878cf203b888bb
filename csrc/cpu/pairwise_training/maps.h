// From maps to the workspace of a band, and from its sums to the gradients of maps.
#if defined(SA_LAYERS_CPU_PAIRWISE_TRAINING_MAPS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_TRAINING_MAPS_H
#undef SA_LAYERS_CPU_PAIRWISE_TRAINING_MAPS_H
#else
#define SA_LAYERS_CPU_PAIRWISE_TRAINING_MAPS_H
#endif

#include "cpu/pairwise_training/softmax.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Calls body(channel, lanes) for the vectors of some channels.
template <typename T, typename Body>
ALWAYS_INLINE void for_each_vector_of(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + kLanes<T> <= channels; c += kLanes<T>) body(c, AllLanes{});
  if (c < channels) body(c, SomeLanes{0, channels - c});
}

// A masked store takes tens of cycles on some processors with AVX2; SAN's first stage has maps of four channels.
template <typename T>
ALWAYS_INLINE void store_channels(T* to, Vector<T> from, AllLanes) {
  store(to, from);
}
template <typename T>
ALWAYS_INLINE void store_channels(T* to, Vector<T> from, SomeLanes lanes) {
  if constexpr (sizeof(T) == sizeof(Compute<T>) && kLanes<T> > 4) {
    if (lanes.end == 4) return (void)__builtin_memcpy(to, &from, 4 * sizeof(T));
  }
  store(to, from, lanes);
}

// The sum of some evenly spaced pixels' channels, and their number.
template <typename T>
void sample_channels(const PairwiseTraining& problem, const MapView<const T>& map, double* sums, int64_t* count) {
  constexpr int64_t kSamples = 64;
  const int64_t pixels = problem.batch * problem.footprint.pixels(), step = max(int64_t{1}, pixels / kSamples);
  const Scratch<Compute<T>> pixel(round_up(problem.channels, kLanes<T>));
  *count = 0;
  for (int64_t p = 0; p < pixels; p += step, ++*count) {
    const int64_t in_image = p % problem.footprint.pixels(), width = problem.footprint.columns.size;
    const T* const from =
        map.row(p / problem.footprint.pixels(), in_image / width) + in_image % width * map.strides.pixel;
    convert_run(from, pixel.data(), problem.channels);
    for (int64_t c = 0; c < problem.channels; ++c) sums[c] += pixel.data()[c];
  }
}

// The position part of a pixel: matrix * (x, y, 1).
template <typename C>
ALWAYS_INLINE void encode_position(const PairwiseTraining& problem, const PairParameters<C>& parameters,
                                   const double* matrix, int64_t x, int64_t y, C* to) {
  for (int64_t i = 0; i < problem.positions; ++i) {
    to[i] = static_cast<C>(matrix[3 * i] * parameters.column_coordinates[x] +
                           matrix[3 * i + 1] * parameters.row_coordinates[y] + matrix[3 * i + 2]);
  }
}

template <typename T>
void load_keys(const PairWorkspace<Compute<T>>& at, const Band& band, const MapView<const T>& key) {
  using C = Compute<T>;
  const PairwiseTraining& problem = at.problem;
  const PairParameters<C>& parameters = at.parameters;
  const int64_t width = problem.footprint.columns.size, size = problem.map_columns();
  const bool with_position = problem.positions > 0 && !problem.by_offset;
  if (size > problem.channels) {
    clear(at.keys.data(), band.rows() * width * size);
  }
  for (int64_t y = band.first_row; y < band.last_row; ++y) {
    const T* const from = key.row(band.image, y);
    C* const to = at.keys.data() + (y - band.first_row) * width * size;
    C* const keys = to + problem.key_column();
    const int64_t step = key.strides.pixel;
    for_each_vector_of<T>(problem.channels, [&](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
      const Vector<C> center = load(parameters.key_center + c), scale = load(parameters.key_scale + c);
      for (int64_t x = 0; x < width; ++x) {
        store_channels<C>(keys + x * size + c, (load(from + x * step + c, lanes) - center) * scale, lanes);
      }
    });
    for (int64_t x = 0; with_position && x < width; ++x) {
      encode_position(problem, parameters, parameters.key_position, x, y, to + x * size + problem.map_first_position());
    }
  }
  C* const zero = at.keys.data() + (problem.window_pixels() - 1) * size;
  clear(zero, size);
  for (int64_t c = 0; c < problem.channels; ++c) {
    zero[problem.key_column() + c] = -parameters.key_center[c] * parameters.key_scale[c];
  }
}

template <typename T>
void load_queries(const PairWorkspace<Compute<T>>& at, const Band& band, int64_t row, const MapView<const T>& query) {
  using C = Compute<T>;
  const PairwiseTraining& problem = at.problem;
  const PairParameters<C>& parameters = at.parameters;
  const Axis &rows = problem.footprint.rows, &columns = problem.footprint.columns;
  const int64_t width = problem.width(), size = problem.map_columns(), step = columns.stride * query.strides.pixel;
  const T* const from = query.row(band.image, row * rows.stride);
  C* const to = at.queries.data();
  if (size > problem.channels) {
    for (int64_t x = 0; x < width; ++x) {
      for (int64_t c = 0; c < size; c += kLanes<C>) {
        store(to + x * size + c, load(parameters.pixel_shift + c));
      }
    }
  }
  for_each_vector_of<T>(problem.channels, [&](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
    const Vector<C> center = load(parameters.query_center + c), scale = load(parameters.query_scale + c),
                    shift = load(parameters.pixel_shift + c);
    for (int64_t x = 0; x < width; ++x) {
      store_channels<C>(to + x * size + c, (load(from + x * step + c, lanes) - center) * scale + shift, lanes);
    }
  });
  if (problem.positions == 0 || problem.by_offset) return;
  for (int64_t x = 0; x < width; ++x) {
    encode_position(problem, parameters, parameters.query_position, x * columns.stride, row * rows.stride,
                    to + x * size + problem.map_first_position());
  }
}

// Copies a row of pixels; channels are padded with zeros.
template <typename T>
void copy_pixels(const T* from, int64_t step, int64_t pixels, int64_t channels, Compute<T>* to, int64_t size) {
  for (int64_t x = 0; x < pixels; ++x) {
    for_each_vector_of<T>(channels, [&](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
      store(to + x * size + c, load(from + x * step + c, lanes));
    });
  }
}

// The rows of a map that are computed in place need no copy.
template <typename T>
const Compute<T>* row_in_place(const T* row, int64_t step, int64_t pixels, int64_t channels, Compute<T>* copy,
                               int64_t* size) {
  *size = round_up(channels, kLanes<T>);
  copy_pixels(row, step, pixels, channels, copy, *size);
  return copy;
}
template <typename C>
const C* row_of_same_type(const C* row, int64_t step, int64_t pixels, int64_t channels, C* copy, int64_t* size) {
  if (channels % kLanes<C> != 0) return row_in_place<C>(row, step, pixels, channels, copy, size);
  *size = step;
  return row;
}
inline const float* read_row(const float* row, int64_t step, int64_t pixels, int64_t channels, float* copy,
                             int64_t* size) {
  return row_of_same_type(row, step, pixels, channels, copy, size);
}
inline const double* read_row(const double* row, int64_t step, int64_t pixels, int64_t channels, double* copy,
                              int64_t* size) {
  return row_of_same_type(row, step, pixels, channels, copy, size);
}
template <typename T>
const float* read_row(const T* row, int64_t step, int64_t pixels, int64_t channels, float* copy, int64_t* size) {
  return row_in_place<T>(row, step, pixels, channels, copy, size);
}

// Whether a row can be written in place.
template <typename C>
bool row_to_write(C* row, int64_t channels, C** to) {
  *to = row;
  return channels % kLanes<C> == 0;
}
inline bool row_to_write(Half*, int64_t, float**) { return false; }
inline bool row_to_write(BFloat16*, int64_t, float**) { return false; }

// The values of the window: in place where pixels of rows follow each other and no tap reads a padded zero.
template <typename T>
void load_values(const PairwiseTraining& problem, ValueWorkspace<Compute<T>>& at, const Band& band,
                 const MapView<const T>& value) {
  using C = Compute<T>;
  const int64_t width = problem.footprint.columns.size, channels = problem.value_channels;
  const T* const first = value.row(band.image, band.first_row);
  if constexpr (sizeof(T) == sizeof(C)) {
    const bool in_rows = value.strides.row == width * value.strides.pixel || problem.footprint.rows.size == 1;
    if (in_rows && problem.footprint.mode == Padding::kReflect && channels % kLanes<C> == 0) {
      at.values = first, at.value_size = value.strides.pixel;
      return;
    }
  }
  const int64_t size = problem.padded_value();
  for (int64_t y = band.first_row; y < band.last_row; ++y) {
    copy_pixels(value.row(band.image, y), value.strides.pixel, width, channels,
                at.value_copy.data() + (y - band.first_row) * width * size, size);
  }
  clear(at.value_copy.data() + (problem.window_pixels() - 1) * size, size);
  at.values = at.value_copy.data(), at.value_size = size;
}

// to[x][c] (+)= factor[c] * sums[x][c], without the factor where it is null.
template <typename T>
void store_gradients(const Compute<T>* sums, int64_t sums_size, const Compute<T>* factor, int64_t pixels,
                     int64_t channels, T* to, int64_t step, bool accumulate) {
  for_each_vector_of<T>(channels, [&](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
    const Vector<T> scale = factor == nullptr ? broadcast<T>(1) : load(factor + c);
    for (int64_t x = 0; x < pixels; ++x) {
      Vector<T> gradient = scale * load(sums + x * sums_size + c);
      if (accumulate) gradient += load(to + x * step + c, lanes);
      store_channels<T>(to + x * step + c, gradient, lanes);
    }
  });
}

// moments[c] += sum over pixels of sums[c] * (map[c] - center[c]), and totals[c] += sum of sums[c] unless null.
template <typename T>
void add_moments(const Compute<T>* sums, int64_t sums_size, const T* map, int64_t step, const Compute<T>* center,
                 int64_t pixels, int64_t channels, double* moments) {
  using C = Compute<T>;
  for_each_vector_of<T>(channels, [&](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
    Vector<C> moment = {};
    const Vector<C> mean = load(center + c);
    for (int64_t x = 0; x < pixels; ++x) {
      moment += load(sums + x * sums_size + c) * (load(map + x * step + c, lanes) - mean);
    }
    for (int64_t lane = 0; lane < min(kLanes<C>, channels - c); ++lane) moments[c + lane] += moment[lane];
  });
}

// position[i] += sum over pixels of sums[i] * (x, y, 1).
template <typename C>
void add_position_moments(const PairwiseTraining& problem, const PairParameters<C>& parameters, const C* sums,
                          int64_t sums_size, int64_t pixels, int64_t x_stride, int64_t y, double* position) {
  for (int64_t i = 0; i < problem.positions; ++i) {
    double sum = 0, moment = 0;
    for (int64_t x = 0; x < pixels; ++x) {
      const double number = sums[x * sums_size + i];
      sum += number, moment += number * parameters.column_coordinates[x * x_stride];
    }
    position[3 * i] += moment, position[3 * i + 1] += sum * parameters.row_coordinates[y], position[3 * i + 2] += sum;
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_TRAINING_MAPS_H

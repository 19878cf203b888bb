// The norm of the features in closed form. A tap reads a pixel of the map for rows[i][h] * columns[j][w] output pixels;
// these kernels apply the columns, and their callers the rows.
#if defined(SA_LAYERS_CPU_PATCHWISE_TRAINING_NORM_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PATCHWISE_TRAINING_NORM_H
#undef SA_LAYERS_CPU_PATCHWISE_TRAINING_NORM_H
#else
#define SA_LAYERS_CPU_PATCHWISE_TRAINING_NORM_H
#endif

#include "cpu/patchwise_training/regions.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// All channels of a pixel, as vectors of a buffer.
template <typename T>
ChannelVectors all_channels(int64_t channels) {
  const int64_t lanes = kLanes<T>, vectors = ceil_div(channels, lanes), last = channels - (vectors - 1) * lanes;
  return {0, lanes, vectors, channels < lanes ? channels : lanes, last, channels < lanes};
}

// For the rows begin <= h < end: sums[0][h][j] = sum over images and w of columns[j][w] * (pixel - shift), and sums[1]
// the same of its square, for every channel.
template <typename T>
void sum_rows_of_map(const RowsOfMap<const T>& rows, const double* shift, double* sums, int64_t begin, int64_t end) {
  const ChannelVectors vectors = all_channels<T>(rows.channels);
  const int64_t pixel_size = vectors.pixel_size(kLanes<T>), size = round_up(rows.width * pixel_size, kLanes<T>);
  const Scratch<Compute<T>> pixels(size);
  const Scratch<double> shifts(size), totals(size), squares(size);
  for (int64_t i = 0; i < size; ++i) shifts.data()[i] = i % pixel_size < rows.channels ? shift[i % pixel_size] : 0;
  for (int64_t row = begin; row < end; ++row) {
    fill_with_zeros(totals.data(), size), fill_with_zeros(squares.data(), size);
    for (int64_t image = 0; image < rows.batch; ++image) {
      copy_pixels(rows.row(image, row), rows.map.pixel_stride, rows.width, vectors, pixels.data());
      const Compute<T>* const from = pixels.data();
      double *const total = totals.data(), *const square = squares.data();
      const double* const centre = shifts.data();
#pragma GCC ivdep
      for (int64_t i = 0; i < size; ++i) {
        const double value = from[i] - centre[i];
        total[i] += value, square[i] += value * value;
      }
    }
    for (int64_t j = 0; j < rows.taps; ++j) {
      for (int64_t moment = 0; moment < 2; ++moment) {
        const double* from = moment == 0 ? totals.data() : squares.data();
        double* const to = sums + ((moment * rows.height + row) * rows.taps + j) * rows.channels;
        for (int64_t c = 0; c < rows.channels; ++c) to[c] = 0;
        for (int64_t w = 0; w < rows.width; ++w, from += pixel_size) {
          const double count = rows.columns[j * rows.width + w];
#pragma GCC ivdep
          for (int64_t c = 0; c < rows.channels; ++c) to[c] += count * from[c];
        }
      }
    }
  }
}

// For the rows begin <= h < end of all images: gradient -= constant + slope * (pixel - centre), where constant and
// slope are the sums over j of columns[j][w] * coefficients[0 or 1][h][j].
template <typename T>
void subtract_norm(const RowsOfMap<const T>& rows, const double* centre, const double* coefficients,
                   const PixelMap<T>& gradient, int64_t begin, int64_t end) {
  using C = Compute<T>;
  const ChannelVectors vectors = all_channels<T>(rows.channels);
  const int64_t pixel_size = vectors.pixel_size(kLanes<T>), size = round_up(rows.width * pixel_size, kLanes<T>);
  const Scratch<C> pixels(size), gradients(size), constants(size), slopes(size), centres(size);
  const Scratch<double> sums(2 * pixel_size);
  for (int64_t i = 0; i < size; ++i) {
    centres.data()[i] = i % pixel_size < rows.channels ? static_cast<C>(centre[i % pixel_size]) : 0;
  }
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t w = 0; w < rows.width; ++w) {
      fill_with_zeros(sums.data(), 2 * pixel_size);
      double *const constant = sums.data(), *const slope = sums.data() + pixel_size;
      for (int64_t j = 0; j < rows.taps; ++j) {
        const double count = rows.columns[j * rows.width + w];
        const double* const first = coefficients + (row * rows.taps + j) * rows.channels;
        const double* const second = first + rows.height * rows.taps * rows.channels;
#pragma GCC ivdep
        for (int64_t c = 0; c < rows.channels; ++c) constant[c] += count * first[c], slope[c] += count * second[c];
      }
      for (int64_t c = 0; c < pixel_size; ++c) {
        constants.data()[w * pixel_size + c] = static_cast<C>(constant[c]);
        slopes.data()[w * pixel_size + c] = static_cast<C>(slope[c]);
      }
    }
    for (int64_t image = 0; image < rows.batch; ++image) {
      T* const to = gradient.data + (image * rows.height + row) * rows.width * gradient.pixel_stride;
      copy_pixels(rows.row(image, row), rows.map.pixel_stride, rows.width, vectors, pixels.data());
      copy_pixels<T>(to, gradient.pixel_stride, rows.width, vectors, gradients.data());
      for (int64_t i = 0; i < size; i += kLanes<T>) {
        const Vector<T> offset = load(pixels.data() + i) - load(centres.data() + i);
        const Vector<T> change = load(constants.data() + i) + load(slopes.data() + i) * offset;
        store(gradients.data() + i, load(gradients.data() + i) - change);
      }
      const C* const from = gradients.data();
      store_pixels(&from, 1, rows.width, vectors, to, gradient.pixel_stride);
    }
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_TRAINING_NORM_H

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

// The sums of a row of a map.
template <typename T>
class RowSums {
 public:
  RowSums(const NormedMap<T>& map, const double* shift)
      : map_(map),
        vectors_(all_channels<T>(map.channels)),
        pixel_size_(vectors_.pixel_size(kLanes<T>)),
        size_(round_up(map.width * pixel_size_, kLanes<T>)),
        pixels_(size_),
        shifts_(size_),
        totals_(size_),
        squares_(size_) {
    fill_with_zeros(pixels_.data(), size_);
    for (int64_t i = 0; i < size_; ++i) {
      shifts_.data()[i] = i % pixel_size_ < map.channels ? shift[i % pixel_size_] : 0;
    }
  }

  void start() { fill_with_zeros(totals_.data(), size_), fill_with_zeros(squares_.data(), size_); }

  void add(int64_t image, int64_t row) {
    copy_pixels(map_.row(image, row), map_.pixels.pixel_stride, map_.width, vectors_, pixels_.data());
    const Compute<T>* const from = pixels_.data();
    const double* const shift = shifts_.data();
    double *const total = totals_.data(), *const square = squares_.data();
#pragma GCC ivdep
    for (int64_t i = 0; i < size_; ++i) {
      const double value = from[i] - shift[i];
      total[i] += value, square[i] += value * value;
    }
  }

  // sums[0][row][j] = the sum over w of columns[j][w] times the totals, and sums[1] that of the squares.
  void finish(int64_t row, double* sums) const {
    for (int64_t moment = 0; moment < 2; ++moment) {
      for (int64_t j = 0; j < map_.taps; ++j) {
        const double* from = moment == 0 ? totals_.data() : squares_.data();
        double* const to = sums + ((moment * map_.height + row) * map_.taps + j) * map_.channels;
        for (int64_t c = 0; c < map_.channels; ++c) to[c] = 0;
        for (int64_t w = 0; w < map_.width; ++w, from += pixel_size_) {
          const double count = map_.columns[j * map_.width + w];
#pragma GCC ivdep
          for (int64_t c = 0; c < map_.channels; ++c) to[c] += count * from[c];
        }
      }
    }
  }

 private:
  const NormedMap<T>& map_;
  ChannelVectors vectors_;
  int64_t pixel_size_, size_;
  Scratch<Compute<T>> pixels_;
  Scratch<double> shifts_, totals_, squares_;
};

// For the rows begin <= h < end of query and key: sums over images and w of columns[j][w] * (pixel - shift), and of its
// square. Both maps at once, since they are often slices of one.
template <typename T>
void sum_rows(const NormedMap<T>& query, const NormedMap<T>& key, const double* shifts, double* query_sums,
              double* key_sums, int64_t begin, int64_t end) {
  RowSums<T> of_query(query, shifts), of_key(key, shifts + query.channels);
  for (int64_t row = begin; row < end; ++row) {
    of_query.start(), of_key.start();
    for (int64_t image = 0; image < query.batch; ++image) of_query.add(image, row), of_key.add(image, row);
    of_query.finish(row, query_sums), of_key.finish(row, key_sums);
  }
}

// The gradients of a row of a map.
template <typename T>
class RowGradients {
 public:
  RowGradients(const NormedMap<T>& map, const double* centre)
      : map_(map),
        vectors_(all_channels<T>(map.channels)),
        pixel_size_(vectors_.pixel_size(kLanes<T>)),
        size_(round_up(map.width * pixel_size_, kLanes<T>)),
        pixels_(size_),
        gradients_(size_),
        constants_(size_),
        slopes_(size_),
        centres_(size_),
        sums_(2 * pixel_size_) {
    for (const Scratch<C>* buffer : {&pixels_, &gradients_, &constants_, &slopes_})
      fill_with_zeros(buffer->data(), size_);
    for (int64_t i = 0; i < size_; ++i) {
      centres_.data()[i] = i % pixel_size_ < map.channels ? static_cast<C>(centre[i % pixel_size_]) : 0;
    }
  }

  // The constants and slopes of a row.
  void start(int64_t row) {
    double *const constant = sums_.data(), *const slope = sums_.data() + pixel_size_;
    for (int64_t w = 0; w < map_.width; ++w) {
      fill_with_zeros(sums_.data(), 2 * pixel_size_);
      for (int64_t j = 0; j < map_.taps; ++j) {
        const double count = map_.columns[j * map_.width + w];
        const double* const first = map_.coefficients + (row * map_.taps + j) * map_.channels;
        const double* const second = first + map_.height * map_.taps * map_.channels;
#pragma GCC ivdep
        for (int64_t c = 0; c < map_.channels; ++c) constant[c] += count * first[c], slope[c] += count * second[c];
      }
      for (int64_t c = 0; c < map_.channels; ++c) {
        constants_.data()[w * pixel_size_ + c] = static_cast<C>(constant[c]);
        slopes_.data()[w * pixel_size_ + c] = static_cast<C>(slope[c]);
      }
    }
  }

  void subtract(int64_t image, int64_t row) {
    const int64_t stride = map_.gradient.pixel_stride;
    T* const to = map_.gradient.data + (image * map_.height + row) * map_.width * stride;
    copy_pixels(map_.row(image, row), map_.pixels.pixel_stride, map_.width, vectors_, pixels_.data());
    copy_pixels<T>(to, stride, map_.width, vectors_, gradients_.data());
    for (int64_t i = 0; i < size_; i += kLanes<T>) {
      const Vector<T> offset = load(pixels_.data() + i) - load(centres_.data() + i);
      const Vector<T> change = load(constants_.data() + i) + load(slopes_.data() + i) * offset;
      store(gradients_.data() + i, load(gradients_.data() + i) - change);
    }
    const C* const from = gradients_.data();
    store_pixels(&from, 1, map_.width, vectors_, to, stride);
  }

 private:
  using C = Compute<T>;

  const NormedMap<T>& map_;
  ChannelVectors vectors_;
  int64_t pixel_size_, size_;
  Scratch<C> pixels_, gradients_, constants_, slopes_, centres_;
  Scratch<double> sums_;
};

// For the rows begin <= h < end of query and key: gradient -= constant + slope * (pixel - centre), where constant and
// slope are the sums over j of columns[j][w] * coefficients[0 or 1][h][j].
template <typename T>
void subtract_norm(const NormedMap<T>& query, const NormedMap<T>& key, const double* centres, int64_t begin,
                   int64_t end) {
  RowGradients<T> of_query(query, centres), of_key(key, centres + query.channels);
  for (int64_t row = begin; row < end; ++row) {
    of_query.start(row), of_key.start(row);
    for (int64_t image = 0; image < query.batch; ++image) of_query.subtract(image, row), of_key.subtract(image, row);
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_TRAINING_NORM_H

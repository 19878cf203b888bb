// Which pixels an output row or column reads, each once. Where a footprint reaches beyond the border, several of its
// taps read the same pixel, and what follows from the pair of a pixel and its neighbour is the same for all of them.
#pragma once

#include <cmath>
#include <vector>

#include "footprint.h"

namespace sa_layers::cpu {

struct DistinctPixel {
  int32_t pixel;      // -1 for the zeros beyond the border
  int32_t first_tap;  // of those that read it
  int32_t taps;
  double log2_taps;
};

// What the kernels see of an axis.
struct DistinctPixelsOfAxis {
  const DistinctPixel* pixels;
  const int32_t* starts;  // of each output's pixels, and where the last one's end

  const DistinctPixel* begin(int64_t output) const { return pixels + starts[output]; }
  const DistinctPixel* end(int64_t output) const { return pixels + starts[output + 1]; }
};

class DistinctPixels {
 public:
  DistinctPixels(const Axis& axis, Padding mode) {
    for (int64_t output = 0; output < axis.output_size(); ++output) {
      const size_t start = pixels_.size();
      starts_.push_back(static_cast<int32_t>(start));
      for (int64_t tap = 0; tap < axis.kernel; ++tap) {
        const auto pixel = static_cast<int32_t>(axis.pixel(axis.padded(output, tap), mode));
        size_t i = start;
        while (i < pixels_.size() && pixels_[i].pixel != pixel) ++i;
        if (i == pixels_.size()) pixels_.push_back({pixel, static_cast<int32_t>(tap), 0, 0.0});
        ++pixels_[i].taps;
      }
    }
    starts_.push_back(static_cast<int32_t>(pixels_.size()));
    for (DistinctPixel& pixel : pixels_) pixel.log2_taps = std::log2(pixel.taps);
  }

  DistinctPixelsOfAxis view() const { return {pixels_.data(), starts_.data()}; }

 private:
  std::vector<DistinctPixel> pixels_;
  std::vector<int32_t> starts_;
};

}  // namespace sa_layers::cpu

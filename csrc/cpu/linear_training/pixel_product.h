// Products of pixels with a matrix, for forward and for the gradient of the input: a residual and a bias come before
// the product, the mask of a ReLU and sums over the pixels after it.
#if defined(SA_LAYERS_CPU_LINEAR_TRAINING_PIXEL_PRODUCT_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_LINEAR_TRAINING_PIXEL_PRODUCT_H
#undef SA_LAYERS_CPU_LINEAR_TRAINING_PIXEL_PRODUCT_H
#else
#define SA_LAYERS_CPU_LINEAR_TRAINING_PIXEL_PRODUCT_H
#endif

#include "cpu/linear/packing.h"
#include "cpu/linear_training/double_sums.h"
#include "cpu/linear_training/problem.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Panels that are multiplied together: rows of the result whose stride is a power of two compete for one set of the
// first-level cache, so that longer pieces of them are better.
constexpr int64_t kMaxProductPanels = 4;
constexpr int64_t kPackedPanels = 8;  // that are packed together

// Packs the panels begin <= panel < end: matrix[(panel * depth + k) * kPanelColumns + column].
template <typename T>
void pack_matrices(const PixelProduct& problem, int64_t begin, int64_t end, float* matrix) {
  const int64_t channels = problem.weight_channels, depth = problem.depth, panel_size = depth * kPanelColumns;
  if (problem.transposes) {
    for (int64_t panel = begin; panel < end; ++panel) {
      to_planes(problem.weights[panel], channels, kPanelColumns, depth, matrix + panel * panel_size, kPanelColumns);
    }
    return;
  }
  // Rows of the weights are far apart, so that each is read for some panels at once.
  for (int64_t first = begin; first < end; first += kPackedPanels) {
    const int64_t last = min(first + kPackedPanels, end);
    for (int64_t k = 0; k < depth; ++k) {
      const float* const from = problem.weights[k / kPanelColumns] + k % kPanelColumns * channels;
      for (int64_t panel = first; panel < last; ++panel) {
        float* const row = matrix + panel * panel_size + k * kPanelColumns;
        const int64_t column = panel * kPanelColumns, columns = min(kPanelColumns, channels - column);
        for_each_vector(columns, [&](int64_t c, auto lanes)
                                     ALWAYS_INLINE_LAMBDA { store(row + c, load(from + column + c, lanes)); });
        for (int64_t c = columns; c < kPanelColumns; ++c) row[c] = 0.0f;
      }
    }
  }
}

// Masks some columns of some pixels of the result, and adds them to the sums.
inline void mask_and_add(const PixelProduct& problem, int64_t pixel, int64_t count, int64_t column, int64_t columns,
                         double* sums) {
  const ReluMask mask = problem.mask;
  const float* const pixels = mask.pixels.data + pixel * mask.pixels.stride + column;
  float* const result = problem.result + pixel * problem.result_stride + column;
  const int64_t stride = mask.pixels.stride, result_stride = problem.result_stride;
  double* const product_sums = sums + problem.panels * kPanelColumns;
  for_each_vector(columns, [=](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
    const Vector<float> scale = load(mask.scale + column + c, lanes), shift = load(mask.shift + column + c, lanes);
    const Vector<float> mean = load(mask.mean + column + c, lanes);
    const float* from = pixels + c;
    float* to = result + c;
    Vector<float> sum = {}, products = {};
    for (int64_t i = 0; i < count; ++i, from += stride, to += result_stride) {
      const Vector<float> x = load(from, lanes), all = load(to, lanes);
      const Vector<float> grad = scale * x + shift <= 0 ? Vector<float>{} : all;  // NaN passes, as in torch's ReLU
      store(to, grad, lanes);
      sum = sum + grad;
      products = products + grad * (x - mean);
    }
    add_to_doubles(sums + column + c, sum);
    add_to_doubles(product_sums + column + c, products);
  });
}

inline void copy_block(const float* from, int64_t from_stride, float* to, int64_t to_stride, int64_t count,
                       int64_t columns) {
  for (int64_t i = 0; i < count; ++i) {
    for_each_vector(columns, [&](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
      store(to + i * to_stride + c, load(from + i * from_stride + c, lanes), lanes);
    });
  }
}

// A part of the result, and of the depth of the product.
struct Step {
  int64_t pixel, count, panel, panels, depth;
  bool is_first, is_last;  // of the depth
  double* sums;            // of the band
};

// Multiplies a block of pixels. A block with columns beyond the last of the result is computed in `corner`.
inline void multiply_step(const PixelProduct& problem, const Step& step, const float* rows, const float* matrix,
                          int64_t panel_stride, float* corner) {
  const int64_t column = step.panel * kPanelColumns;
  const int64_t columns = min(step.panels * kPanelColumns, problem.columns - column);
  float* const result = problem.result + step.pixel * problem.result_stride + column;
  const bool is_whole = columns == step.panels * kPanelColumns, has_residual = problem.residual.data != nullptr;
  PixelRows initial{problem.bias + column, 0};
  if (!step.is_first) {
    initial = {result, problem.result_stride};
  } else if (has_residual) {
    initial = {problem.residual.data + step.pixel * problem.residual.stride + column, problem.residual.stride};
  }
  constexpr int64_t kCornerStride = kMaxProductPanels * kPanelColumns;
  if (!is_whole && initial.stride != 0) {
    copy_block(initial.data, initial.stride, corner, kCornerStride, step.count, columns);
    initial = {corner, kCornerStride};
  }
  const Product product{rows,
                        step.count,
                        step.depth,
                        matrix,
                        kPanelColumns,
                        panel_stride,
                        initial.data,
                        initial.stride,
                        is_whole ? result : corner,
                        is_whole ? problem.result_stride : kCornerStride,
                        problem.bias + column};
  if (step.is_first && has_residual && problem.has_bias) {
    multiply<BiasedRows, 1>(product, step.panels);
  } else {
    multiply<InterleavedRows, 1>(product, step.panels);
  }
  if (!is_whole) copy_block(corner, kCornerStride, result, problem.result_stride, step.count, columns);
  if (step.is_last && problem.mask.pixels.data != nullptr) {
    mask_and_add(problem, step.pixel, step.count, column, columns, step.sums);
  }
}

// Prefetches what a step reads of maps besides the activations, and the result. The contiguous piece of each row is too
// short for the hardware prefetcher.
inline void prefetch_step(const PixelProduct& problem, const Step& step) {
  const int64_t column = step.panel * kPanelColumns;
  const auto prefetch = [&](const float* map, int64_t stride) ALWAYS_INLINE_LAMBDA {
    const float* row = map + step.pixel * stride + column;
    for (int64_t i = 0; i < kBlockRows; ++i, row += stride) {
      for (int64_t panel = 0; panel < step.panels; ++panel) __builtin_prefetch(row + panel * kPanelColumns);
    }
  };
  prefetch(problem.result, problem.result_stride);
  if (step.is_first && problem.residual.data != nullptr) prefetch(problem.residual.data, problem.residual.stride);
  if (step.is_last && problem.mask.pixels.data != nullptr)
    prefetch(problem.mask.pixels.data, problem.mask.pixels.stride);
}

// Memory of a task.
struct ProductMemory {
  float *rows, *corner;
};

// Multiplies the pixels from first to last with some panels. While a step is computed, the maps of the next one are
// prefetched, or of the first one of the next tile.
inline void multiply_tile(const PixelProduct& problem, int64_t first, int64_t last, int64_t first_panel,
                          int64_t last_panel, double* sums, const ProductMemory& memory) {
  const int64_t panel_stride = problem.depth * kPanelColumns;
  for (int64_t k = 0; k < problem.depth; k += kDepth) {
    const int64_t depth = min(kDepth, problem.depth - k);
    const bool is_last = k + depth == problem.depth;
    pack_activations(problem.activations, first, last - first, k, depth, memory.rows);
    for (int64_t panel = first_panel, panels; panel < last_panel; panel += panels) {
      panels = min(kMaxProductPanels, last_panel - panel);
      const float* const matrix = problem.matrix + panel * panel_stride + k * kPanelColumns;
      const float* rows = memory.rows;
      for (int64_t pixel = first; pixel < last; pixel += kBlockRows, rows += InterleavedRows::kBlock) {
        const Step step{pixel, min(kBlockRows, last - pixel), panel, panels, depth, k == 0, is_last, sums};
        Step next = step;
        if (pixel + kBlockRows < last) {
          next.pixel += kBlockRows;
        } else if (panel + panels < last_panel) {
          next.pixel = first, next.panel += panels;
        } else {
          next.pixel = last, next.panel = first_panel;
        }
        prefetch_step(problem, next);
        multiply_step(problem, step, rows, matrix, panel_stride, memory.corner);
      }
    }
  }
}

// Computes the tasks begin <= task < end; a task is a band of pixels times a part of the panels. If the matrix fits the
// second-level cache, each block of pixels goes through all panels, so that all maps are read and written once, in
// order. Otherwise the left factor of the band fits it, and the band goes through a few panels at a time.
template <typename T>
void multiply_pixels(const PixelProduct& problem, int64_t begin, int64_t end) {
  const int64_t tile = problem.matrix_is_cached ? kBlockRows : problem.band_pixels;
  const int64_t columns = problem.panels * kPanelColumns;
  // Aligned to a page: otherwise some maps take 10 % longer.
  const Scratch<float, 4096> rows(ceil_div(tile, kBlockRows) * InterleavedRows::kBlock);
  const Scratch<float> corner(kBlockRows * kMaxProductPanels * kPanelColumns);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t band = task / problem.panel_parts, part = task % problem.panel_parts;
    const int64_t first_panel = problem.panels * part / problem.panel_parts;
    const int64_t last_panel = problem.panels * (part + 1) / problem.panel_parts;
    double* sums = nullptr;
    if (problem.mask.sums != nullptr) {
      sums = problem.mask.sums + band * 2 * columns;
      for (int64_t c = first_panel * kPanelColumns; c < last_panel * kPanelColumns; ++c)
        sums[c] = sums[columns + c] = 0;
    }
    const int64_t last = min((band + 1) * problem.band_pixels, problem.pixels);
    for (int64_t pixel = band * problem.band_pixels; pixel < last; pixel += tile) {
      multiply_tile(problem, pixel, min(pixel + tile, last), first_panel, last_panel, sums,
                    {rows.data(), corner.data()});
    }
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_LINEAR_TRAINING_PIXEL_PRODUCT_H

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

constexpr int64_t kMaxProductPanels = 4;  // that are multiplied together
constexpr int64_t kPackedPanels = 8;      // that are packed together, unless all are packed already

// Packs a part of the depth of some panels: to[(panel * depth + k) * kPanelColumns + column]. Rows of the weights are
// far apart, so that each is read for all panels at once.
inline void pack_matrix(const PixelProduct& problem, int64_t panel, int64_t panels, int64_t first, int64_t depth,
                        float* to) {
  const int64_t channels = problem.weight_channels, panel_size = depth * kPanelColumns;
  if (problem.transposes) {
    for (int64_t p = 0; p < panels; ++p) {
      to_planes(problem.weights[panel + p] + first, channels, kPanelColumns, depth, to + p * panel_size, kPanelColumns);
    }
    return;
  }
  const int64_t column = panel * kPanelColumns;
  for (int64_t k = 0; k < depth; ++k) {
    const float* from = problem.weights[(first + k) / kPanelColumns] + (first + k) % kPanelColumns * channels + column;
    for (int64_t p = 0; p < panels; ++p, from += kPanelColumns) {
      float* const row = to + p * panel_size + k * kPanelColumns;
      if (column + (p + 1) * kPanelColumns <= channels) {
        for_each_vector(kPanelColumns, [&](int64_t c, auto) ALWAYS_INLINE_LAMBDA { store(row + c, load(from + c)); });
      } else {
        const int64_t columns = channels - column - p * kPanelColumns;
        for (int64_t c = 0; c < kPanelColumns; ++c) row[c] = c < columns ? from[c] : 0.0f;
      }
    }
  }
}

// Packs the panels begin <= panel < end whole, for matrices that fit the cache.
template <typename T>
void pack_matrices(const PixelProduct& problem, int64_t begin, int64_t end, float* matrix) {
  pack_matrix(problem, begin, end - begin, 0, problem.depth, matrix + begin * problem.depth * kPanelColumns);
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
  if (!step.is_first) prefetch(problem.result, problem.result_stride);
  if (step.is_first && problem.residual.data != nullptr) prefetch(problem.residual.data, problem.residual.stride);
  if (step.is_last && problem.mask.pixels.data != nullptr)
    prefetch(problem.mask.pixels.data, problem.mask.pixels.stride);
}

// Memory of a task.
struct ProductMemory {
  float *rows, *matrix, *corner;
};

// Multiplies the pixels from first to last with some panels. While a step is computed, the maps of the next one are
// prefetched, or of the first one of the next tile.
inline void multiply_tile(const PixelProduct& problem, int64_t first, int64_t last, int64_t first_panel,
                          int64_t last_panel, double* sums, const ProductMemory& memory) {
  const int64_t max_panels = last - first <= kBlockRows ? kMaxProductPanels : kBlockGroups;
  const int64_t group_panels = problem.matrix_is_cached ? last_panel - first_panel : kPackedPanels;
  for (int64_t k = 0; k < problem.depth; k += kDepth) {
    const int64_t depth = min(kDepth, problem.depth - k);
    const bool is_last = k + depth == problem.depth;
    const int64_t panel_stride = (problem.matrix_is_cached ? problem.depth : depth) * kPanelColumns;
    pack_activations(problem.activations, first, last - first, k, depth, memory.rows);
    for (int64_t group = first_panel; group < last_panel; group += group_panels) {
      const int64_t group_end = min(group + group_panels, last_panel);
      const float* matrix = problem.matrix + (group * problem.depth + k) * kPanelColumns;
      if (!problem.matrix_is_cached) {
        pack_matrix(problem, group, group_end - group, k, depth, memory.matrix);
        matrix = memory.matrix;
      }
      for (int64_t panel = group, panels; panel < group_end; panel += panels, matrix += panels * panel_stride) {
        panels = min(max_panels, group_end - panel);
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
}

// Computes the tasks begin <= task < end; a task is a band of pixels times a part of the panels. If the matrix fits the
// second-level cache, each block of pixels goes through all panels, so that all maps are read and written once, in
// order. Otherwise the band goes through a panel while it is in the first-level cache.
template <typename T>
void multiply_pixels(const PixelProduct& problem, int64_t begin, int64_t end) {
  const int64_t tile = problem.matrix_is_cached ? kBlockRows : problem.band_pixels;
  const int64_t columns = problem.panels * kPanelColumns;
  // Aligned to a page: otherwise some maps take 10 % longer.
  const Scratch<float, 4096> rows(ceil_div(tile, kBlockRows) * InterleavedRows::kBlock);
  const Scratch<float> matrix(problem.matrix_is_cached ? 0 : kPackedPanels * kDepth * kPanelColumns);
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
                    {rows.data(), matrix.data(), corner.data()});
    }
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_LINEAR_TRAINING_PIXEL_PRODUCT_H

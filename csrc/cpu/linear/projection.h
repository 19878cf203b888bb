// The linear layer of a tile of pixels. Both factors are packed into the cache, some input channels at a time: the
// features after norm and ReLU or pooling, and the weights, transposed.
#if defined(SA_LAYERS_CPU_LINEAR_PROJECTION_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_LINEAR_PROJECTION_H
#undef SA_LAYERS_CPU_LINEAR_PROJECTION_H
#else
#define SA_LAYERS_CPU_LINEAR_PROJECTION_H
#endif

#include "cpu/linear/packing.h"
#include "cpu/linear/problem.h"
#include "cpu/simd/transpose.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// The maximum, or NaN where either is NaN, as in torch's max-pooling.
ALWAYS_INLINE Vector<float> max_or_nan(Vector<float> a, Vector<float> b) { return b > a || b != b ? b : a; }

// Packs rows of the left factor: some channels of some pixels, each the maximum of 2x2 pixels of the features.
inline void read_pooled_features(const Projection& problem, int64_t pixel, int64_t count, int64_t channel,
                                 int64_t depth, float* rows) {
  for_each_row(rows, count, [&](int64_t i, float* row) ALWAYS_INLINE_LAMBDA {
    const float* upper = problem.corner_of(pixel + i) + channel;
    const float* lower = upper + problem.row_stride;
    for_each_vector(depth, [&](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
      const Vector<float> above = max_or_nan(load(upper + c, lanes), load(upper + problem.feature_stride + c, lanes));
      const Vector<float> below = max_or_nan(load(lower + c, lanes), load(lower + problem.feature_stride + c, lanes));
      store_interleaved(row, c, max_or_nan(above, below));
      const float* const corners[] = {upper, lower};
      for (const float* corner : corners) {
        __builtin_prefetch(corner + 4 * problem.feature_stride + c);  // of the pixel after the next, early enough
        __builtin_prefetch(corner + 5 * problem.feature_stride + c);
      }
    });
  });
}

// Packs rows of the left factor: some channels of some pixels, after the norm and the ReLU before the layer.
inline void read_features(const Projection& problem, int64_t pixel, int64_t count, int64_t channel, int64_t depth,
                          float* rows) {
  const Activations activations{problem.features, problem.feature_stride, problem.scale, problem.shift};
  pack_activations(activations, pixel, count, channel, depth, rows);
}

// Packs some input channels of a panel: to[c * kPanelColumns + column] = weights[column * channels + channel + c].
inline void pack_panel(const Projection& problem, int64_t panel, int64_t channel, int64_t depth, float* to) {
  to_planes(problem.weights[panel] + channel, problem.channels, kPanelColumns, depth, to, kPanelColumns);
}

// Packs the panels begin <= panel < end whole, for matrices that fit the cache.
template <typename T>
void pack_panels(const Projection& problem, int64_t begin, int64_t end, float* matrix) {
  for (int64_t panel = begin; panel < end; ++panel) {
    pack_panel(problem, panel, 0, problem.channels, matrix + panel * problem.channels * kPanelColumns);
  }
}

// The epilogue: the norm and the ReLU after the layer, for the columns of some panels of a few pixels.
inline void apply_epilogue(const Projection& problem, int64_t panel, int64_t panels, int64_t count, float* result) {
  const float* scale = problem.output_scale + panel * kPanelColumns;
  const float* shift = problem.output_shift + panel * kPanelColumns;
  for (int64_t c = 0; c < panels * kPanelColumns; c += kLanes<float>) {
    const Vector<float> factor = load(scale + c), summand = load(shift + c);
    for (int64_t i = 0; i < count; ++i) {
      float* to = result + i * problem.result_stride + c;
      store(to, relu(factor * load(to) + summand));
    }
  }
}

constexpr int64_t kMaxPanels = 4;  // that are multiplied together
// The same for a tile of many blocks. Rows of a wide result are a power of two apart and compete for one set of the
// first-level cache, so that longer pieces of them are better; with AVX-512, a block has two panels anyway.
constexpr int64_t kTilePanels = max(kBlockGroups, SA_LAYERS_TARGET == SA_LAYERS_AVX512 ? 1 : kMaxPanels);

// A part of the result: some pixels, some panels.
struct Tile {
  int64_t first_pixel, last_pixel, first_panel, last_panel;
};

// Prefetches what a block of the result adds to: the contiguous piece of each row is too short for the hardware
// prefetcher.
inline void prefetch_result(const Projection& problem, int64_t pixel, int64_t panel, int64_t panels) {
  const float* result = problem.result_at(pixel, panel);
  for (int64_t i = 0; i < kBlockRows; ++i, result += problem.result_stride) {
    for (int64_t p = 0; p < panels; ++p) __builtin_prefetch(result + p * kPanelColumns);
  }
}

// Prefetches a part of the weights that are packed next: some input channels of some panels.
struct WeightPrefetch {
  const Projection& problem;
  int64_t panel, panels, channel;

  void operator()(int64_t part, int64_t parts) const {
    const int64_t depth = min(kDepth, problem.channels - channel), rows = panels * kPanelColumns;
    for (int64_t row = rows * part / parts; depth > 0 && row < rows * (part + 1) / parts; ++row) {
      const float* weights = problem.weights[panel + row / kPanelColumns] + row % kPanelColumns * problem.channels;
      for (int64_t c = 0; c < depth; c += kGroupColumns) __builtin_prefetch(weights + channel + c, 0, 2);
    }
  }
};

// `rows` holds the left factor of all pixels of the tile, `matrix` the panels that are multiplied together, unless all
// are packed already. When the tile is a single block, it prefetches the block of the result of the next panel, or of
// the next tile.
inline void project_tile(const Projection& problem, const Tile& tile, float* rows, float* matrix) {
  for (int64_t channel = 0; channel < problem.channels; channel += kDepth) {
    const int64_t depth = min(kDepth, problem.channels - channel);
    const auto read = problem.pools ? read_pooled_features : read_features;
    read(problem, tile.first_pixel, tile.last_pixel - tile.first_pixel, channel, depth, rows);
    const bool accumulates = channel > 0 || problem.adds, is_last = channel + kDepth >= problem.channels;
    const bool is_block = tile.last_pixel - tile.first_pixel <= kBlockRows;
    const bool prefetch = channel == 0 && problem.adds && is_block;
    const int64_t max_panels = is_block ? kMaxPanels : kTilePanels;
    for (int64_t panel = tile.first_panel; panel < tile.last_panel; panel += max_panels) {
      const int64_t panels = min(max_panels, tile.last_panel - panel), next = panel + panels;
      const int64_t rest = min(max_panels, tile.last_panel - next);
      if (prefetch && rest > 0) prefetch_result(problem, tile.first_pixel, next, rest);
      if (prefetch && rest == 0) prefetch_result(problem, tile.last_pixel, tile.first_panel, panels);
      const float* packed = problem.matrix + (panel * problem.channels + channel) * kPanelColumns;
      if (!problem.matrix_is_cached) {
        for (int64_t p = 0; p < panels; ++p) {
          pack_panel(problem, panel + p, channel, depth, matrix + p * depth * kPanelColumns);
        }
        packed = matrix;
      }
      const int64_t first_panels = min(max_panels, tile.last_panel - tile.first_panel);
      const WeightPrefetch prefetch_weights =
          rest > 0 ? WeightPrefetch{problem, next, rest, channel}
                   : WeightPrefetch{problem, tile.first_panel, first_panels, channel + kDepth};
      for (int64_t pixel = tile.first_pixel; pixel < tile.last_pixel; pixel += kBlockRows) {
        const int64_t count = min(kBlockRows, tile.last_pixel - pixel);
        if (!problem.matrix_is_cached) {
          prefetch_weights((pixel - tile.first_pixel) / kBlockRows,
                           ceil_div(tile.last_pixel - tile.first_pixel, kBlockRows));
        }
        float* const result = problem.result_at(pixel, panel);
        const Product product{rows + (pixel - tile.first_pixel) / kBlockRows * InterleavedRows::kBlock,
                              count,
                              depth,
                              packed,
                              kPanelColumns,
                              (problem.matrix_is_cached ? problem.channels : depth) * kPanelColumns,
                              accumulates ? result : problem.bias + panel * kPanelColumns,
                              accumulates ? problem.result_stride : 0,
                              result,
                              problem.result_stride};
        multiply<InterleavedRows, 1>(product, panels);
        if (problem.output_scale != nullptr && is_last) apply_epilogue(problem, panel, panels, count, result);
      }
    }
  }
}

// Computes the tasks begin <= task < end; a task is a part of the pixels times a part of the panels. If the matrix fits
// the second-level cache, each block of pixels goes through all panels, so that features and result are read and
// written once, in order. Otherwise max_pixels go through a panel while it is in the first-level cache.
template <typename T>
void projection(const Projection& problem, int64_t begin, int64_t end) {
  const int64_t max_pixels = max(kMaxPixels, problem.part_pixels);
  const int64_t step = problem.matrix_is_cached ? kBlockRows : max_pixels;
  // Aligned to a page: otherwise some maps take 10 % longer.
  const Scratch<float, 4096> rows(ceil_div(step, kBlockRows) * InterleavedRows::kBlock);
  const Scratch<float> matrix(problem.matrix_is_cached ? 0 : kMaxPanels * kDepth * kPanelColumns);
  for (int64_t task = begin, tasks = 1; task < end; task += tasks) {
    const int64_t panel_part = task % problem.panel_parts;
    if (problem.panel_parts == 1) tasks = min(end - task, max_pixels / problem.part_pixels);
    Tile tile{task / problem.panel_parts * problem.part_pixels, 0, problem.panels * panel_part / problem.panel_parts,
              problem.panels * (panel_part + 1) / problem.panel_parts};
    const int64_t last_pixel = min(tile.first_pixel + tasks * problem.part_pixels, problem.pixels);
    for (; tile.first_pixel < last_pixel; tile.first_pixel = tile.last_pixel) {
      tile.last_pixel = min(tile.first_pixel + step, last_pixel);
      project_tile(problem, tile, rows.data(), matrix.data());
    }
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_LINEAR_PROJECTION_H

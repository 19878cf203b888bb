// Patchwise attention with frozen norms: a tile of an image goes through the hidden layer and the weighted sum.
#if defined(SA_LAYERS_CPU_PATCHWISE_ATTENTION_PATCHWISE_ATTENTION_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PATCHWISE_ATTENTION_PATCHWISE_ATTENTION_H
#undef SA_LAYERS_CPU_PATCHWISE_ATTENTION_PATCHWISE_ATTENTION_H
#else
#define SA_LAYERS_CPU_PATCHWISE_ATTENTION_PATCHWISE_ATTENTION_H
#endif

#include "cpu/patchwise_attention/hidden.h"
#include "cpu/patchwise_attention/hidden_pixel_lanes.h"
#include "cpu/patchwise_attention/weighted_sum.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Lists the pixels that the taps of the output pixels begin <= pixel < end read: for each, the pixel itself and then
// every tap. Writes up to one vector past the end.
inline void list_sources(const Footprint& footprint, const TapSources& sources, int64_t begin, int64_t end,
                         int32_t* to) {
  const int64_t width = footprint.columns.output_size();
  const int64_t row_taps = footprint.rows.kernel, column_taps = footprint.columns.kernel;
  int64_t column = begin % width;
  const int32_t *of_row = sources.rows() + begin / width * (row_taps + 1), *of_column = sources.columns();
  of_column += column * (column_taps + 1);
  for (int64_t pixel = begin; pixel < end; ++pixel, of_column += column_taps + 1) {
    *to++ = of_row[0] + of_column[0];
    for (int64_t i = 1; i <= row_taps; ++i, to += column_taps) {
      for (int64_t j = 0; j < column_taps; j += kLanes<float>) {
        Bits columns;
        __builtin_memcpy(&columns, of_column + 1 + j, sizeof(columns));
        columns += of_row[i];
        __builtin_memcpy(to + j, &columns, sizeof(columns));
      }
    }
    if (++column == width) column = 0, of_row += row_taps + 1, of_column -= width * (column_taps + 1);
  }
}

// Computes the tasks begin <= task < end; a task is a tile of an image.
template <typename T>
void patchwise_attention(const PatchwiseOperands<T>& operands, int64_t begin, int64_t end) {
  const PatchwiseAttention& problem = operands.problem;
  const int64_t tile = problem.tile_pixels, pixels = problem.footprint.output_pixels();
  const bool is_one_panel = problem.weight_panel_taps() >= problem.footprint.taps();
  const Scratch<int32_t> sources(tile * problem.sources() + kLanes<float>);
  const Scratch<float> rows(kBlockRows * kRowStride), hidden(tile * operands.mapping.hidden_stride);
  const Scratch<float> weights(kBlockRows * pad_columns(problem.weight_panel_taps() * problem.tap_stride()));
  const Scratch<float> partial(is_one_panel ? 0 : tile * problem.channels);
  const int64_t max_channels = max(problem.relation_channels, problem.channels);
  const Scratch<T> zeros(max_channels);
  for (int64_t i = 0; i < max_channels; ++i) zeros.data()[i] = T{};

  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / problem.tiles(), first = task % problem.tiles() * tile;
    const int64_t count = min(tile, pixels - first), map_pixels = problem.footprint.pixels();
    PatchwiseOperands<T> image_operands = operands;
    image_operands.query.data += image * map_pixels * image_operands.query.pixel_stride;
    image_operands.key.data += image * map_pixels * image_operands.key.pixel_stride;
    image_operands.value.data += image * map_pixels * image_operands.value.pixel_stride;
    T* const output = image_operands.output.data + (image * pixels + first) * image_operands.output.pixel_stride;
    list_sources(problem.footprint, operands.sources, first, first + count, sources.data());
    if (problem.pixels_in_lanes) {
      compute_hidden_pixel_lanes(image_operands, first, first + count, hidden.data());
    } else {
      compute_hidden(image_operands, sources.data(), count, zeros.data(), rows.data(), hidden.data());
    }
    sum_values(image_operands, sources.data(), count, zeros.data(), hidden.data(), rows.data(), weights.data(),
               partial.data(), output);
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_ATTENTION_PATCHWISE_ATTENTION_H

// The pairs of the output pixels of a row: which pixels they are, and the workspace in which they are computed.
#if defined(SA_LAYERS_CPU_PAIRWISE_TRAINING_PAIRS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_TRAINING_PAIRS_H
#undef SA_LAYERS_CPU_PAIRWISE_TRAINING_PAIRS_H
#else
#define SA_LAYERS_CPU_PAIRWISE_TRAINING_PAIRS_H
#endif

#include "cpu/pairwise_training/packed_pixels.h"
#include "cpu/pairwise_training/problem.h"
#include "cpu/pairwise_training/products.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Some output pixels of a row, with their pairs.
struct PairBlock {
  int64_t first_pixel, end_pixel, count;
  const int32_t* starts;        // of the pixels' pairs; starts[first_pixel] is the first pair of the block
  const int32_t* neighbours;    // in the window, of each pair of the block
  const int32_t* offsets;       // rows of the tables by offset
  const float* multiplicities;  // the number of taps that read the neighbour
  bool has_repeats;             // whether a multiplicity is not 1

  int64_t begin(int64_t pixel) const { return starts[pixel] - starts[first_pixel]; }
};

// The pairs of an output row, in a band's window. A neighbour that several taps read makes one pair.
class RowPairs {
 public:
  explicit RowPairs(const PairwiseTraining& problem)
      : problem_(problem),
        starts_(problem.width() + 1),
        neighbours_(problem.width() * problem.footprint.taps() + kPadding),
        offsets_(problem.width() * problem.footprint.taps() + kPadding),
        multiplicities_(problem.width() * problem.footprint.taps() + kPadding),
        most_(problem.max_block_pairs()) {}

  void start_band(const Band& band) { band_ = band, row_ = -1; }
  // Leaves the pixels first <= pixel < last of the row out of its blocks.
  void skip(int64_t first, int64_t last) { skipped_ = first == last ? -1 : first, rest_ = last; }

  void move_to(int64_t row) {
    if (row_ >= 0 && reads_the_same_rows(row)) {
      const auto shift =
          static_cast<int32_t>((row - row_) * problem_.footprint.rows.stride * problem_.footprint.columns.size);
      const auto zero = static_cast<int32_t>(problem_.window_pixels() - 1);
      int32_t* const neighbours = neighbours_.data();
      const int64_t count = starts_.data()[problem_.width()];
      for (int64_t i = 0; i < count; ++i) neighbours[i] += neighbours[i] == zero ? 0 : shift;
    } else {
      list(row);
    }
    row_ = row;
  }

  // Calls body(block) for blocks of whole pixels.
  template <typename Body>
  ALWAYS_INLINE void for_each_block(const Body& body) const {
    const int32_t* const starts = starts_.data();
    const int64_t width = problem_.width();
    for (int64_t first = 0; first < width;) {
      if (first == skipped_) first = rest_;
      if (first == width) return;
      const int64_t limit = first < skipped_ ? skipped_ : width;
      int64_t end = first + 1;
      while (end < limit && starts[end + 1] - starts[first] <= most_) ++end;
      const int64_t begin = starts[first], number = starts[end] - begin;
      body(PairBlock{first, end, number, starts, neighbours_.data() + begin, offsets_.data() + begin,
                     multiplicities_.data() + begin, number < (end - first) * problem_.footprint.taps()});
      first = end;
    }
  }

  // A block is computed with this many rows at most.
  static int64_t max_block_rows(const PairwiseTraining& problem) {
    return round_up(problem.max_block_pairs(), 2 * kPairBlock);
  }

 private:
  static constexpr int64_t kPadding = 2 * kPairBlock;  // rows of a block that hold no pair read these lists too

  bool reads_the_same_rows(int64_t row) const {
    const int64_t stride = problem_.footprint.rows.stride;
    const DistinctPixel *one = problem_.rows_read.begin(row_), *other = problem_.rows_read.begin(row);
    if (problem_.rows_read.end(row) - other != problem_.rows_read.end(row_) - one) return false;
    for (; other != problem_.rows_read.end(row); ++one, ++other) {
      const bool same = one->pixel < 0 || other->pixel < 0 ? one->pixel == other->pixel
                                                           : one->pixel - row_ * stride == other->pixel - row * stride;
      if (!same || one->taps != other->taps) return false;
    }
    return true;
  }

  void list(int64_t row) {
    const Axis &rows = problem_.footprint.rows, &columns = problem_.footprint.columns;
    int32_t index = 0;
    const auto add = [&](int64_t neighbour, int64_t offset, int64_t taps) {
      neighbours_.data()[index] = static_cast<int32_t>(neighbour);
      offsets_.data()[index] = static_cast<int32_t>(offset);
      multiplicities_.data()[index++] = static_cast<float>(taps);
    };
    const int64_t width = problem_.width();
    for (int64_t column = 0; column < width; ++column) {
      starts_.data()[column] = index;
      int64_t taps_beyond = problem_.footprint.taps();
      for (const DistinctPixel* y = problem_.rows_read.begin(row); y != problem_.rows_read.end(row); ++y) {
        if (y->pixel < 0) continue;
        const int64_t first = (y->pixel - band_.first_row) * columns.size;
        const int64_t row_offset = (y->pixel - row * rows.stride + rows.padding()) * problem_.column_offsets();
        const DistinctPixel* const end = problem_.columns_read.end(column);
        for (const DistinctPixel* x = problem_.columns_read.begin(column); x != end; ++x) {
          if (x->pixel < 0) continue;
          const int64_t offset = row_offset + x->pixel - column * columns.stride + columns.padding();
          add(first + x->pixel, problem_.by_offset ? offset : 0, y->taps * x->taps);
          taps_beyond -= y->taps * x->taps;
        }
      }
      if (taps_beyond > 0) add(problem_.window_pixels() - 1, 0, taps_beyond);
    }
    starts_.data()[problem_.width()] = index;
    for (int64_t i = index; i < index + kPadding; ++i) offsets_.data()[i] = 0;
  }

  const PairwiseTraining& problem_;
  Scratch<int32_t> starts_, neighbours_, offsets_;
  Scratch<float> multiplicities_;
  int64_t most_, row_ = -1, skipped_ = -1, rest_ = -1;
  Band band_{};
};

// Zeros in a workspace.
template <typename C>
void clear(C* data, int64_t count) {
  __builtin_memset(static_cast<void*>(data), 0, count * sizeof(C));
}

// What a thread keeps while it computes a band.
template <typename C>
struct PairWorkspace {
  const PairwiseTraining& problem;
  const PairParameters<C>& parameters;
  RowPairs pairs;
  PackedPixels<C> packed;
  // Of the pixels of the window: keys, as the relation needs them, and sums over the pairs of a neighbour.
  Scratch<C> keys, key_sums;
  // Of the pixels of a row: queries, as the relation needs them, and sums over the pairs of a pixel.
  Scratch<C> queries, query_sums;
  Scratch<C> features, products;  // of the pairs of a block: a, and what a matrix makes of it
  Scratch<C> column_sums;         // of the pairs' gradients, where they do not follow from the sums of pixels

  PairWorkspace(const PairwiseTraining& problem_, const PairParameters<C>& parameters_, int64_t product_columns,
                bool packs)
      : problem(problem_),
        parameters(parameters_),
        pairs(problem_),
        packed(problem_, packs),
        keys(problem.window_pixels() * problem.map_columns() + kLanes<C>),
        key_sums(problem.window_pixels() * problem.map_columns() + kLanes<C>),
        queries(problem.width() * problem.map_columns() + kLanes<C>),
        query_sums(problem.width() * problem.map_columns() + kLanes<C>),
        features(RowPairs::max_block_rows(problem) * problem.padded_columns()),
        products(RowPairs::max_block_rows(problem) * max(product_columns, problem.padded_columns())),
        column_sums(problem.padded_columns()) {
    // Rows of a block that hold no pair are computed too.
    clear(query_sums.data(), problem.width() * problem.map_columns() + kLanes<C>);
    clear(features.data(), RowPairs::max_block_rows(problem) * problem.padded_columns());
    clear(products.data(), RowPairs::max_block_rows(problem) * max(product_columns, problem.padded_columns()));
  }
};

// float sums of many blocks that are added to float64 sums from time to time.
template <typename C>
class FlushedSums {
 public:
  explicit FlushedSums(int64_t count) : count_(count), sums_(count) { clear(sums_.data(), count); }

  C* data() const { return sums_.data(); }
  void flush(double* to) const {
    for (int64_t i = 0; i < count_; ++i) to[i] += sums_.data()[i];
    clear(sums_.data(), count_);
  }

 private:
  int64_t count_;
  Scratch<C> sums_;
};
constexpr int64_t kBlocksOfASum = 28;

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_TRAINING_PAIRS_H

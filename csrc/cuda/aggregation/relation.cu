// Pairwise relations and the query's gradient: one thread per pixel and channel, which loops over the taps. Writing the
// result dominates. (The key's gradient and the relation 'dot' are gradients of aggregation.)

#include <cstdint>
#include <type_traits>

#include "cuda/aggregation/launch.h"
#include "cuda/common/element.cuh"
#include "cuda/common/launch.cuh"
#include "footprint.h"

namespace sa_layers::cuda {

// Calls body(tap, key_pixel) for every tap of an output pixel; key_pixel is -1 for a padded zero.
template <typename Body>
__device__ void for_each_tap(const Footprint& footprint, int64_t row, int64_t column, const Body& body) {
  int64_t tap = 0;
  for (int64_t row_tap = 0; row_tap < footprint.rows.kernel; ++row_tap) {
    const int64_t key_row = footprint.rows.source(row, row_tap, footprint.mode);
    for (int64_t column_tap = 0; column_tap < footprint.columns.kernel; ++column_tap, ++tap) {
      const int64_t key_column = footprint.columns.source(column, column_tap, footprint.mode);
      body(tap, key_row < 0 || key_column < 0 ? -1 : key_row * footprint.columns.size + key_column);
    }
  }
}

template <typename T>
__global__ void pairwise_relation_taps(Aggregation problem, int64_t threads, Relation relation,
                                       const T* __restrict__ query, const T* __restrict__ key, T* __restrict__ result) {
  if (thread_index() >= threads) return;
  const Footprint& footprint = problem.footprint;
  const int64_t output_pixels = footprint.output_pixels(), pixel = thread_index() % output_pixels;
  const int64_t map = thread_index() / output_pixels, image = map / problem.channels;
  const int64_t row = pixel / footprint.columns.output_size(), column = pixel % footprint.columns.output_size();
  const T centre = query[map * footprint.pixels() + row * footprint.rows.stride * footprint.columns.size +
                         column * footprint.columns.stride];
  const T* const keys = key + map * footprint.pixels();
  // 'concatenation' has the query channels, then the key channels.
  const int64_t result_map = relation == Relation::kConcatenation ? map + image * problem.channels : map;
  T* to = result + result_map * footprint.taps() * output_pixels + pixel;
  const int64_t keys_step = problem.channels * footprint.taps() * output_pixels;
  for_each_tap(footprint, row, column, [&](int64_t, int64_t key_pixel) {
    const Compute<T> neighbour = key_pixel < 0 ? Compute<T>(0) : widen(keys[key_pixel]);
    switch (relation) {
      case Relation::kSubtraction:
        narrow(widen(centre) - neighbour, *to);
        break;
      case Relation::kSummation:
        narrow(widen(centre) + neighbour, *to);
        break;
      case Relation::kHadamard:
        narrow(widen(centre) * neighbour, *to);
        break;
      default:
        *to = centre;
        narrow(neighbour, to[keys_step]);
    }
    to += output_pixels;
  });
}

// The gradient summed over the taps, multiplied by the key if the relation is a product.
template <typename T>
__global__ void pairwise_relation_query_gradient_taps(Aggregation problem, int64_t threads, Relation relation,
                                                      const T* __restrict__ grad_output, const T* __restrict__ key,
                                                      T* __restrict__ grad_query) {
  if (thread_index() >= threads) return;
  const Footprint& footprint = problem.footprint;
  const int64_t pixels = footprint.pixels(), pixel = thread_index() % pixels;
  const int64_t map = thread_index() / pixels, image = map / problem.channels;
  const int64_t row = pixel / footprint.columns.size, column = pixel % footprint.columns.size;
  Compute<T> sum = 0;
  if (row % footprint.rows.stride == 0 &&
      column % footprint.columns.stride == 0) {  // otherwise no footprint has this centre
    const int64_t output_row = row / footprint.rows.stride, output_column = column / footprint.columns.stride;
    const int64_t result_map = relation == Relation::kConcatenation ? map + image * problem.channels
                               : relation == Relation::kDot         ? image
                                                                    : map;
    const T* const from = grad_output + result_map * footprint.taps() * footprint.output_pixels() +
                          output_row * footprint.columns.output_size() + output_column;
    for_each_tap(footprint, output_row, output_column, [&](int64_t tap, int64_t key_pixel) {
      const Compute<T> gradient = widen(from[tap * footprint.output_pixels()]);
      if (!is_product(relation)) {
        sum += gradient;
      } else if (key_pixel >= 0) {
        sum += gradient * widen(key[map * pixels + key_pixel]);
      }
    });
  }
  narrow(sum, grad_query[thread_index()]);
}

template <typename T>
__global__ void copy_centres(Aggregation problem, int64_t threads, const T* __restrict__ query,
                             T* __restrict__ centres) {
  if (thread_index() >= threads) return;
  const Axis rows = problem.footprint.rows, columns = problem.footprint.columns;
  const int64_t column = thread_index() % columns.output_size();
  const int64_t row = thread_index() / columns.output_size() % rows.output_size();
  const int64_t map = thread_index() / columns.output_size() / rows.output_size();
  centres[thread_index()] = query[(map * rows.size + row * rows.stride) * columns.size + column * columns.stride];
}

cudaError_t launch_pairwise_relation(const Aggregation& problem, Relation relation, Element element, const void* query,
                                     const void* key, void* result, cudaStream_t stream) {
  const int64_t threads = problem.batch * problem.channels * problem.footprint.output_pixels();
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    return launch_threads(&pairwise_relation_taps<T>, threads, stream, problem, threads, relation,
                          static_cast<const T*>(query), static_cast<const T*>(key), static_cast<T*>(result));
  });
}

cudaError_t launch_pairwise_relation_query_gradient(const Aggregation& problem, Relation relation, Element element,
                                                    const void* grad_output, const void* key, void* grad_query,
                                                    cudaStream_t stream) {
  const int64_t threads = problem.batch * problem.channels * problem.footprint.pixels();
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    return launch_threads(&pairwise_relation_query_gradient_taps<T>, threads, stream, problem, threads, relation,
                          static_cast<const T*>(grad_output), static_cast<const T*>(key), static_cast<T*>(grad_query));
  });
}

cudaError_t launch_centres(const Aggregation& problem, Element element, const void* query, void* centres,
                           cudaStream_t stream) {
  const int64_t threads = problem.batch * problem.channels * problem.footprint.output_pixels();
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    return launch_threads(&copy_centres<T>, threads, stream, problem, threads, static_cast<const T*>(query),
                          static_cast<T*>(centres));
  });
}

}  // namespace sa_layers::cuda

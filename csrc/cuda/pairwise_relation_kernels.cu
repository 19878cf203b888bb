// Launchers of the pairwise relation and its query's gradient. Its key's gradient is one of aggregation.

#include "cuda/launch.h"
#include "cuda/pairwise_relation.cuh"

namespace sa_layers::cuda {

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

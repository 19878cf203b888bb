// Pairwise relations and the query's gradient against the reference. (The key's gradient is a gradient of aggregation.)
#pragma once

#include "buffer.h"
#include "cuda/aggregation/launch.h"

namespace sa_layers::cuda {

template <typename T>
bool check_pairwise_relation(const reference::Problem& given, Element element, int shift) {
  reference::Problem p = given;
  p.channels = p.weight_channels;  // a relation per channel
  const Aggregation problem = geometry(p);
  const Relation relation = Relation(pick(0, 4));
  const int64_t taps = p.kernel[0] * p.kernel[1], pixels = int64_t(p.output_height()) * p.output_width();
  const int parts = relation == Relation::kConcatenation ? 2 : 1;
  const int64_t image = p.channels * taps * pixels;
  const int64_t gradient_size = relation == Relation::kDot ? p.batch * taps * pixels : parts * p.weight_size();
  const auto place = [&](int64_t w) { return w + (parts - 1) * (w / image) * image; };  // in the result
  Buffer<T> query(p.value_size(), shift), key(p.value_size(), shift), gradient(gradient_size, shift);
  Buffer<T> centres(p.output_size(), shift), result(parts * p.weight_size(), shift), grad_query(p.value_size(), shift);
  for (Buffer<T>* tensor : {&query, &key, &gradient}) tensor->randomise();
  for (Buffer<T>* tensor : {&centres, &result, &grad_query}) tensor->forget();

  Expected centre(p.output_size()), results(parts * p.weight_size()), grad_queries(p.value_size());
  reference::for_each_product(p, [&](int64_t v, int64_t w, int64_t o) {
    const int64_t map = o / pixels, row = o % pixels / p.output_width(), column = o % p.output_width();
    const int64_t c = (map * p.height + row * p.stride[0]) * p.width + column * p.stride[1];
    const double q = widen(query.data()[c]), k = v < 0 ? 0 : widen(key.data()[v]);
    centre.sum[o] = q;
    const int64_t relation_map =
        relation == Relation::kDot ? w / image * taps * pixels + w % (taps * pixels) : place(w);
    const double g = widen(gradient.data()[relation_map]);
    const bool product = relation == Relation::kHadamard || relation == Relation::kDot;
    grad_queries.add(c, product ? g * k : g);
    if (relation == Relation::kDot) return;
    results.add(place(w), relation == Relation::kHadamard ? q * k : q);
    if (relation == Relation::kSubtraction) results.add(place(w), -k);
    if (relation == Relation::kSummation) results.add(place(w), k);
    if (relation == Relation::kConcatenation) results.add(place(w) + image, k);
  });

  bool good =
      !launch_centres(problem, element, query.data(), centres.data(), nullptr) && agrees("centres", centres, centre);
  good = good && !launch_pairwise_relation_query_gradient(problem, relation, element, gradient.data(), key.data(),
                                                          grad_query.data(), nullptr);
  good = good && agrees("pairwise_relation_query_gradient", grad_query, grad_queries);
  if (relation == Relation::kDot) return good;
  return good &&
         !launch_pairwise_relation(problem, relation, element, query.data(), key.data(), result.data(), nullptr) &&
         agrees("pairwise_relation", result, results);
}

}  // namespace sa_layers::cuda

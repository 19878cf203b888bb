// The implementations of an operator: an ordered list, of which the first eligible one is launched. Plain C++.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>

namespace sa_layers::cuda {

// `Call` is the problem and what is known about its tensors and the device; why_not also writes the plan that launch
// needs to it.
template <typename Call>
struct Implementation {
  const char* name;
  const char* (*why_not)(Call& call);  // why it is not eligible, or null
  cudaError_t (*launch)(const Call& call, cudaStream_t stream);
};

template <typename Call, size_t kCount>
cudaError_t launch_first(const Implementation<Call> (&implementations)[kCount], Call& call, cudaStream_t stream) {
  for (const Implementation<Call>& implementation : implementations) {
    if (!implementation.why_not(call)) return implementation.launch(call, stream);
  }
  return cudaErrorInvalidConfiguration;
}

// One line per implementation, in order: its name, and after a colon why it is not eligible.
template <typename Call, size_t kCount>
std::string describe(const Implementation<Call> (&implementations)[kCount], Call& call) {
  std::string text;
  for (const Implementation<Call>& implementation : implementations) {
    const char* const reason = implementation.why_not(call);
    text +=
        (text.empty() ? "" : "\n") + std::string(implementation.name) + (reason ? ": " : "") + (reason ? reason : "");
  }
  return text;
}

}  // namespace sa_layers::cuda

// The operators of aggregation.cpp, for other operators made of them.
#pragma once

#include "checks.h"

namespace sa_layers::cpu {

Tensor aggregation(const Tensor& value, const Tensor& weight, const Pair& kernel_size, const Pair& stride,
                   const Pair& dilation, const std::string& padding_mode);
Tensor aggregation_value_gradient(const Tensor& grad_output, const Tensor& weight, int64_t height, int64_t width,
                                  const Pair& kernel_size, const Pair& stride, const Pair& dilation,
                                  const std::string& padding_mode);
Tensor aggregation_weight_gradient(const Tensor& grad_output, const Tensor& value, int64_t weight_channels,
                                   const Pair& kernel_size, const Pair& stride, const Pair& dilation,
                                   const std::string& padding_mode);

}  // namespace sa_layers::cpu

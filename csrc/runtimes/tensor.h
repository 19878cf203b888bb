// The part of torch's stable ABI that the CPU bindings call, without torch: tensors on the memory of another runtime,
// and parallel loops in its threads. The headers in csrc/runtimes/torch lead here, so the bindings compile unchanged
// and make all of their checks.
#pragma once

#include <any>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace sa_layers::runtimes {

// The runtime that calls an operator.
class Host {
 public:
  virtual ~Host() = default;
  virtual int64_t threads() const = 0;
  // Calls body(0) to body(count - 1) in the threads of the runtime, in any order.
  virtual void parallel(int64_t count, const std::function<void(int64_t)>& body) = 0;
  // Memory for a result of this shape, (N, H, W, C).
  virtual float* allocate_result(const std::vector<int64_t>& shape) = 0;
};

// The runtime that calls the operator that this thread is in.
inline thread_local Host* current_host = nullptr;

// The operators that the bindings register: pointers to functions, by name.
inline std::map<std::string, std::any>& registered_operators() {
  static std::map<std::string, std::any> operators;
  return operators;
}

struct Registrar {
  explicit Registrar(void (*register_all)(Registrar&)) { register_all(*this); }
  template <typename Function>
  void impl(const char* name, Function* function) {
    registered_operators()[name] = function;
  }
};

template <typename... Parts>
std::string joined(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

}  // namespace sa_layers::runtimes

#define STD_TORCH_CHECK(condition, ...) \
  ((condition) ? void() : throw std::invalid_argument(::sa_layers::runtimes::joined(__VA_ARGS__)))
#define TORCH_BOX(function) function
#define STABLE_TORCH_LIBRARY_IMPL(name, key, library)                                              \
  static void register_##name##_##key(::sa_layers::runtimes::Registrar& library);                  \
  static const ::sa_layers::runtimes::Registrar registrar_##name##_##key{register_##name##_##key}; \
  static void register_##name##_##key([[maybe_unused]] ::sa_layers::runtimes::Registrar& library)

namespace torch::headeronly {

enum class ScalarType { Float, Double, Half, BFloat16 };
enum class MemoryFormat { Contiguous, ChannelsLast };

inline const char* toString(ScalarType type) {
  constexpr const char* kNames[] = {"Float", "Double", "Half", "BFloat16"};
  return kNames[static_cast<int>(type)];
}

}  // namespace torch::headeronly

namespace torch::stable {

using headeronly::MemoryFormat;
using headeronly::ScalarType;

struct Device {
  bool operator==(const Device&) const { return true; }  // there is only the CPU
};

// Float32 elements that the runtime owns.
class Tensor {
 public:
  Tensor(float* data, std::vector<int64_t> sizes, std::vector<int64_t> strides)
      : data_(data), sizes_(std::move(sizes)), strides_(std::move(strides)) {}
  Tensor(float* data, const std::vector<int64_t>& sizes) : Tensor(data, sizes, contiguous_strides(sizes)) {}

  const void* const_data_ptr() const { return data_; }
  void* mutable_data_ptr() const { return data_; }
  float* data() const { return data_; }
  ScalarType scalar_type() const { return ScalarType::Float; }
  Device device() const { return {}; }
  int64_t dim() const { return static_cast<int64_t>(sizes_.size()); }
  const std::vector<int64_t>& sizes() const { return sizes_; }
  const std::vector<int64_t>& strides() const { return strides_; }
  int64_t size(int64_t dimension) const { return sizes_[index(dimension)]; }
  int64_t stride(int64_t dimension) const { return strides_[index(dimension)]; }
  int64_t numel() const {
    int64_t product = 1;
    for (const int64_t size : sizes_) product *= size;
    return product;
  }
  bool is_contiguous() const {
    const auto expected = contiguous_strides(sizes_);
    for (size_t i = 0; i < sizes_.size(); ++i) {
      if (sizes_[i] > 1 && strides_[i] != expected[i]) return false;
    }
    return true;
  }

 private:
  static std::vector<int64_t> contiguous_strides(const std::vector<int64_t>& sizes) {
    std::vector<int64_t> strides(sizes.size(), 1);
    for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * sizes[i];
    return strides;
  }
  size_t index(int64_t dimension) const { return dimension < 0 ? dimension + sizes_.size() : dimension; }

  float* data_;
  std::vector<int64_t> sizes_, strides_;
};

inline Tensor transpose(const Tensor& tensor, int64_t first, int64_t second) {
  std::vector<int64_t> sizes = tensor.sizes(), strides = tensor.strides();
  std::swap(sizes[first], sizes[second]), std::swap(strides[first], strides[second]);
  return {tensor.data(), sizes, strides};
}

// No operator copies: runtimes lend contiguous tensors, of which operators take slices of channels.
inline Tensor contiguous(const Tensor& tensor, MemoryFormat = MemoryFormat::Contiguous) {
  STD_TORCH_CHECK(tensor.is_contiguous(), "a tensor must be contiguous");
  return tensor;
}
inline Tensor to(const Tensor& tensor, ScalarType) {
  STD_TORCH_CHECK(false, "a tensor must be float32");
  return tensor;
}

// The result of an operator, (N, C, H, W), which is channels last.
inline Tensor empty(const std::vector<int64_t>& sizes, ScalarType, std::nullopt_t, Device, std::nullopt_t,
                    MemoryFormat) {
  const std::vector<int64_t> shape{sizes[0], sizes[2], sizes[3], sizes[1]};
  const Tensor result(sa_layers::runtimes::current_host->allocate_result(shape), shape);
  return transpose(transpose(result, 2, 3), 1, 2);
}
// For operators that no runtime calls.
inline Tensor new_empty(const Tensor&, const std::vector<int64_t>&, ScalarType = ScalarType::Float) {
  throw std::logic_error("a runtime cannot call this operator");
}
inline Tensor fill_(const Tensor& tensor, double) { return tensor; }

inline int64_t get_num_threads() { return sa_layers::runtimes::current_host->threads(); }

template <typename Body>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Body& body) {
  const int64_t count = end - begin, most = grain > 0 ? (count + grain - 1) / grain : count;
  const int64_t parts = most < get_num_threads() ? most : get_num_threads();
  if (count <= 0) return;
  if (parts <= 1) return body(begin, end);
  sa_layers::runtimes::current_host->parallel(
      parts, [&](int64_t part) { body(begin + count * part / parts, begin + count * (part + 1) / parts); });
}

}  // namespace torch::stable

// A frozen batch norm and its ReLU, channels last: relu(scale * x + shift), channel by channel.
#if defined(SA_LAYERS_CPU_LINEAR_AFFINE_RELU_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_LINEAR_AFFINE_RELU_H
#undef SA_LAYERS_CPU_LINEAR_AFFINE_RELU_H
#else
#define SA_LAYERS_CPU_LINEAR_AFFINE_RELU_H
#endif

#include "cpu/simd/vector.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// One vector of one pixel's channels, or its first lanes. NaN stays NaN, as in torch's ReLU.
template <typename T, typename Lanes>
ALWAYS_INLINE void affine_relu_vector(const T* from, const Compute<T>* scale, const Compute<T>* shift, T* to,
                                      Lanes lanes) {
  const Vector<T> result = load(scale, lanes) * load(from, lanes) + load(shift, lanes);
  store(to, result < 0 ? Vector<T>{} : result, lanes);
}

// Computes the pixels first_pixel <= pixel < last_pixel. The result may be the features themselves.
template <typename T>
void affine_relu(const T* features, const Compute<T>* scale, const Compute<T>* shift, int64_t channels, T* result,
                 int64_t first_pixel, int64_t last_pixel) {
  for (int64_t pixel = first_pixel; pixel < last_pixel; ++pixel) {
    const T* const from = features + pixel * channels;
    T* const to = result + pixel * channels;
    int64_t c = 0;
    for (; c + kLanes<T> <= channels; c += kLanes<T>) {
      affine_relu_vector(from + c, scale + c, shift + c, to + c, AllLanes{});
    }
    if (c < channels) affine_relu_vector(from + c, scale + c, shift + c, to + c, SomeLanes{0, channels - c});
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_LINEAR_AFFINE_RELU_H

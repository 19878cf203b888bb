// The instruction set that the kernels use, chosen once at run time, and calls of kernels compiled for it.
#pragma once

#include <cstdint>

namespace sa_layers::cpu {

enum class Capability { kDefault, kAvx2, kAvx512 };

// The best instruction set of this processor, or a lower one that the environment variable SA_LAYERS_CPU_CAPABILITY
// asks for ('default', 'avx2' or 'avx512').
Capability capability();
const char* capability_name(Capability capability);
// The lanes of a vector in kernels that SA_LAYERS_DISPATCH calls, for elements that are computed in float32 or float64.
int64_t vector_lanes(bool is_float64);

}  // namespace sa_layers::cpu

// Calls the kernel<T>(...) that foreach_target.h compiled for the chosen instruction set. Kernels for float64, which
// only gradient checks use, run on the baseline and are compiled for it alone.
#ifdef __x86_64__
#define SA_LAYERS_DISPATCH(T, kernel, ...)                              \
  do {                                                                  \
    using ::sa_layers::cpu::Capability;                                 \
    if constexpr (sizeof(T) == sizeof(double)) {                        \
      ::sa_layers::cpu::baseline::kernel<T>(__VA_ARGS__);               \
    } else if (::sa_layers::cpu::capability() == Capability::kAvx512) { \
      ::sa_layers::cpu::avx512::kernel<T>(__VA_ARGS__);                 \
    } else if (::sa_layers::cpu::capability() == Capability::kAvx2) {   \
      ::sa_layers::cpu::avx2::kernel<T>(__VA_ARGS__);                   \
    } else {                                                            \
      ::sa_layers::cpu::baseline::kernel<T>(__VA_ARGS__);               \
    }                                                                   \
  } while (false)
#else
#define SA_LAYERS_DISPATCH(T, kernel, ...) ::sa_layers::cpu::baseline::kernel<T>(__VA_ARGS__)
#endif

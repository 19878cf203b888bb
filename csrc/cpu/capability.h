// The instruction set that the kernels use, chosen once at run time.
#pragma once

namespace sa_layers::cpu {

enum class Capability { kDefault, kAvx2, kAvx512 };

// The best one of this processor, or a lower one that the environment variable SA_LAYERS_CPU_CAPABILITY asks for
// ('default', 'avx2' or 'avx512').
Capability capability();
const char* capability_name(Capability capability);

}  // namespace sa_layers::cpu

// Calls a kernel for elements of type T that for_each_capability.inc compiled for every instruction set. float64 is for
// checks of gradients: the baseline is enough, and spares compilation.
#ifdef __x86_64__
#define SA_LAYERS_BEST(T, kernel, ...)                                  \
  do {                                                                  \
    using ::sa_layers::cpu::Capability;                                 \
    if constexpr (sizeof(T) == sizeof(double)) {                        \
      ::sa_layers::cpu::base::kernel<T>(__VA_ARGS__);                   \
    } else if (::sa_layers::cpu::capability() == Capability::kAvx512) { \
      ::sa_layers::cpu::avx512::kernel<T>(__VA_ARGS__);                 \
    } else if (::sa_layers::cpu::capability() == Capability::kAvx2) {   \
      ::sa_layers::cpu::avx2::kernel<T>(__VA_ARGS__);                   \
    } else {                                                            \
      ::sa_layers::cpu::base::kernel<T>(__VA_ARGS__);                   \
    }                                                                   \
  } while (false)
#else
#define SA_LAYERS_BEST(T, kernel, ...) ::sa_layers::cpu::base::kernel<T>(__VA_ARGS__)
#endif

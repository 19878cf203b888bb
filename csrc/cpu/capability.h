// The instruction set that the kernels use, chosen once at run time.
#pragma once

namespace sa_layers::cpu {

enum class Capability { kDefault, kAvx2, kAvx512 };

// The best one of this processor, or a lower one that the environment variable SA_LAYERS_CPU_CAPABILITY asks for
// ('default', 'avx2' or 'avx512').
Capability capability();
const char* capability_name(Capability capability);

}  // namespace sa_layers::cpu

// Calls a function that for_each_capability.inc compiled for every instruction set.
#ifdef __x86_64__
#define SA_LAYERS_BEST(function, ...)                    \
  do {                                                   \
    switch (::sa_layers::cpu::capability()) {            \
      case ::sa_layers::cpu::Capability::kAvx512:        \
        ::sa_layers::cpu::avx512::function(__VA_ARGS__); \
        break;                                           \
      case ::sa_layers::cpu::Capability::kAvx2:          \
        ::sa_layers::cpu::avx2::function(__VA_ARGS__);   \
        break;                                           \
      default:                                           \
        ::sa_layers::cpu::base::function(__VA_ARGS__);   \
    }                                                    \
  } while (false)
#else
#define SA_LAYERS_BEST(function, ...) ::sa_layers::cpu::base::function(__VA_ARGS__)
#endif

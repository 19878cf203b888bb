#include <torch/csrc/stable/library.h>

#include <cstdlib>
#include <string>

#include "cpu/simd/dispatch.h"

namespace sa_layers::cpu {
namespace {

Capability best_of_processor() {
#ifdef __x86_64__
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2) return avx512 ? Capability::kAvx512 : Capability::kAvx2;
#endif
  return Capability::kDefault;
}

Capability choose() {
  const Capability best = best_of_processor();
  const char* asked = std::getenv("SA_LAYERS_CPU_CAPABILITY");
  if (asked == nullptr || *asked == '\0') return best;
  for (const Capability lower : {Capability::kDefault, Capability::kAvx2, Capability::kAvx512}) {
    // If the processor lacks the instruction set that is asked for, use what it has: a program must not die of an
    // illegal instruction.
    if (std::string(asked) == capability_name(lower)) return lower < best ? lower : best;
  }
  STD_TORCH_CHECK(false, "SA_LAYERS_CPU_CAPABILITY must be 'default', 'avx2' or 'avx512', got '", asked, "'");
}

std::string cpu_capability() { return capability_name(capability()); }

}  // namespace

Capability capability() {
  static const Capability chosen = choose();
  return chosen;
}

const char* capability_name(Capability capability) {
  switch (capability) {
    case Capability::kAvx512:
      return "avx512";
    case Capability::kAvx2:
      return "avx2";
    default:
      return "default";
  }
}

int64_t vector_lanes(bool is_float64) {
  if (is_float64) return 2;  // always the baseline's
  switch (capability()) {
    case Capability::kAvx512:
      return 16;
    case Capability::kAvx2:
      return 8;
    default:
      return 4;
  }
}

}  // namespace sa_layers::cpu

// No tensor argument names a device, so the kernel is registered for all of them.
STABLE_TORCH_LIBRARY_IMPL(sa_layers, CompositeExplicitAutograd, library) {
  library.impl("cpu_capability", TORCH_BOX(&sa_layers::cpu::cpu_capability));
}

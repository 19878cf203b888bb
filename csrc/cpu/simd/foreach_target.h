// Compiles a source file once for each instruction set, as Google Highway's foreach_target.h does. The file names
// itself and includes this header, then its per-target headers, and puts what must exist only once between #if
// SA_LAYERS_ONCE and #endif:
//
//     #define SA_LAYERS_TARGET_INCLUDE "cpu/linear/binding.cpp"
//     #include "cpu/simd/foreach_target.h"
//
// This header includes the file once for each instruction set except the baseline. The rest of the file is then
// compiled for the baseline.
#if defined(SA_LAYERS_TARGET_INCLUDE) && !defined(SA_LAYERS_FOREACH_TARGET_H)
#define SA_LAYERS_FOREACH_TARGET_H

#include "cpu/simd/target.h"

#ifdef __x86_64__
#define SA_LAYERS_ONCE 0

#undef SA_LAYERS_TARGET
#define SA_LAYERS_TARGET SA_LAYERS_AVX2
#include SA_LAYERS_TARGET_INCLUDE

#define SA_LAYERS_TARGET_TOGGLE  // lets every per-target header through once more
#undef SA_LAYERS_TARGET
#define SA_LAYERS_TARGET SA_LAYERS_AVX512
#include SA_LAYERS_TARGET_INCLUDE

#undef SA_LAYERS_TARGET_TOGGLE
#undef SA_LAYERS_TARGET
#define SA_LAYERS_TARGET SA_LAYERS_BASELINE
#undef SA_LAYERS_ONCE
#endif

#define SA_LAYERS_ONCE 1

#endif

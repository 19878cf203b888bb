// The instruction set that per-target headers are compiled for. foreach_target.h sets it; elsewhere it is the baseline.
//
// A per-target header opens and closes its namespace with SA_LAYERS_BEGIN_TARGET() and SA_LAYERS_END_TARGET(), and has
// a guard that lets it through once for each instruction set (as in Google Highway):
//
//     #if defined(SA_LAYERS_CPU_NAME_H) == defined(SA_LAYERS_TARGET_TOGGLE)
//     #ifdef SA_LAYERS_CPU_NAME_H
//     #undef SA_LAYERS_CPU_NAME_H
//     #else
//     #define SA_LAYERS_CPU_NAME_H
//     #endif
//     ... includes ...
//     SA_LAYERS_BEGIN_TARGET();
//     namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {
//     ...
//     }  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
//     SA_LAYERS_END_TARGET();
//     #endif  // SA_LAYERS_CPU_NAME_H
//
// Inside, use no template of std:: : the linker keeps one copy of each instantiation for the whole library, which must
// not be one that only newer processors can run.
#pragma once

#ifdef __x86_64__
#include <immintrin.h>
#endif

#define SA_LAYERS_BASELINE 0  // what the compiler targets without a flag: SSE2 on x86-64
#define SA_LAYERS_AVX2 1
#define SA_LAYERS_AVX512 2

#ifndef SA_LAYERS_TARGET
#define SA_LAYERS_TARGET SA_LAYERS_BASELINE
#endif

#define SA_LAYERS_CONCAT(a, b) a##b
#define SA_LAYERS_EXPANDED_CONCAT(a, b) SA_LAYERS_CONCAT(a, b)

// The namespace of the target: baseline, avx2 or avx512.
#define SA_LAYERS_NAMESPACE SA_LAYERS_EXPANDED_CONCAT(SA_LAYERS_NAMESPACE_, SA_LAYERS_TARGET)
#define SA_LAYERS_NAMESPACE_0 baseline
#define SA_LAYERS_NAMESPACE_1 avx2
#define SA_LAYERS_NAMESPACE_2 avx512

// Functions between the two may use the target's instructions; the flags of the compilation stay the baseline's.
#define SA_LAYERS_BEGIN_TARGET SA_LAYERS_EXPANDED_CONCAT(SA_LAYERS_BEGIN_, SA_LAYERS_TARGET)
#define SA_LAYERS_END_TARGET SA_LAYERS_EXPANDED_CONCAT(SA_LAYERS_END_, SA_LAYERS_TARGET)
#define SA_LAYERS_PRAGMA(text) _Pragma(#text)
#ifdef __clang__
#define SA_LAYERS_PUSH_TARGET(features) \
  SA_LAYERS_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define SA_LAYERS_POP_TARGET SA_LAYERS_PRAGMA(clang attribute pop)
#else
#define SA_LAYERS_PUSH_TARGET(features) SA_LAYERS_PRAGMA(GCC push_options) SA_LAYERS_PRAGMA(GCC target(features))
#define SA_LAYERS_POP_TARGET SA_LAYERS_PRAGMA(GCC pop_options)
#endif
#define SA_LAYERS_BEGIN_0() static_assert(true)
#define SA_LAYERS_END_0() static_assert(true)
#define SA_LAYERS_BEGIN_1() SA_LAYERS_PUSH_TARGET("avx2,fma") static_assert(true)
#define SA_LAYERS_END_1() SA_LAYERS_POP_TARGET static_assert(true)
#define SA_LAYERS_BEGIN_2() SA_LAYERS_PUSH_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma") static_assert(true)
#define SA_LAYERS_END_2() SA_LAYERS_POP_TARGET static_assert(true)

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define ALWAYS_INLINE_LAMBDA __attribute__((always_inline))

// Tensor core instructions, which all 32 threads of a warp execute together, and the warp-wide instructions beside
// them. A file of its own because the host emulation of the tests replaces it.
//
// A step along the inner dimension is 32 bytes of a row: 16 half-precision numbers or 8 of TF32. The rows of the left
// matrix and the columns of the right one are in shared memory, contiguous along the inner dimension, in units of 16
// bytes.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/common/element.cuh"

namespace sa_layers::cuda {

// TF32: a float32 of which tensor cores read the upper 19 bits.
struct TensorFloat {
  float number;
};

__device__ inline void narrow(float number, TensorFloat& to) {
#if __CUDA_ARCH__ >= 800
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(number));
  to.number = __uint_as_float(bits);
#else
  to.number = number;
#endif
}

// Whether the target architecture has tensor cores for F.
template <typename F>
__device__ constexpr bool has_tensor_cores() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  return true;
#elif __CUDA_ARCH__ >= 750
  return std::is_same_v<F, __half>;
#else
  return false;
#endif
}

// Steps of the inner dimension to unroll: as many as registers hold the fragments of.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr int kStepsAtOnce = 1;
#else
constexpr int kStepsAtOnce = 2;
#endif

// ldmatrix: loads four, or two, matrices of eight rows of 16 bytes. Thread i passes the address of row i % 8 of matrix
// i / 8, and receives word i % 4 of row i / 4 of each matrix.
__device__ inline void load_matrices(const void* row, uint32_t (&words)[4]) {
  const uint32_t address = uint32_t(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address)
               : "memory");
}
__device__ inline void load_matrices(const void* row, uint32_t (&words)[2]) {
  const uint32_t address = uint32_t(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(words[0]), "=r"(words[1])
               : "r"(address)
               : "memory");
}

// The same with each matrix transposed: thread i receives rows 2 (i % 4) and the next of column i / 4.
__device__ inline void load_transposed_matrices(const void* row, uint32_t (&words)[4]) {
  const uint32_t address = uint32_t(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address)
               : "memory");
}

// Whether the predicate holds for any thread of the warp.
__device__ inline bool any_of_warp(bool holds) { return __any_sync(0xffffffff, holds); }

// A named barrier for some warps of the block; number 0 is that of __syncthreads, 15 is the last.
__device__ inline void named_barrier(int barrier, int warps) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(32 * warps) : "memory");
}

namespace instructions {

// sums += left * right, a 16x8 tile. With g = i / 4 and t = i % 4, thread i holds
//   of `left` words t of rows g and g + 8, then words t + 4 of the same,
//   of `right` words t and t + 4 of column g,
//   of `sums` columns 2 t and 2 t + 1 of row g, then of row g + 8.
template <typename F>
__device__ void multiply_accumulate(float (&sums)[4], const uint32_t (&left)[4], const uint32_t (&right)[2]) {
#define SA_LAYERS_MULTIPLY(shape_and_types)                                                                  \
  asm("mma.sync.aligned." shape_and_types " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                                           \
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]))
#if __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<F, __half>) SA_LAYERS_MULTIPLY("m16n8k16.row.col.f32.f16.f16.f32");
  if constexpr (std::is_same_v<F, __nv_bfloat16>) SA_LAYERS_MULTIPLY("m16n8k16.row.col.f32.bf16.bf16.f32");
  if constexpr (std::is_same_v<F, TensorFloat>) SA_LAYERS_MULTIPLY("m16n8k8.row.col.f32.tf32.tf32.f32");
#elif __CUDA_ARCH__ >= 750
#pragma unroll
  for (int half = 0; half < 2; ++half) {  // 16 bytes at a time
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(left[2 * half]), "r"(left[2 * half + 1]), "r"(right[half]));
  }
#endif
#undef SA_LAYERS_MULTIPLY
}

}  // namespace instructions

// The same for half precision with a step of 16 bytes: `left` holds words t of rows g and g + 8, `right` word t of
// column g.
template <typename F>
__device__ void multiply_accumulate_half_step(float (&sums)[4], const uint32_t (&left)[2], uint32_t right) {
#define SA_LAYERS_MULTIPLY(types)                                                                      \
  asm("mma.sync.aligned.m16n8k8.row.col." types " {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};" \
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                                     \
      : "r"(left[0]), "r"(left[1]), "r"(right))
#if __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<F, __half>) SA_LAYERS_MULTIPLY("f32.f16.f16.f32");
  if constexpr (std::is_same_v<F, __nv_bfloat16>) SA_LAYERS_MULTIPLY("f32.bf16.bf16.f32");
#endif
#undef SA_LAYERS_MULTIPLY
}

// One 16x8 tile, one step.
template <typename F>
__device__ void multiply_accumulate(float (&sums)[4], const uint32_t (&left)[4], const uint32_t* right) {
  const uint32_t words[2] = {right[0], right[1]};
  instructions::multiply_accumulate<F>(sums, left, words);
}

// kRows by kColumns tiles, one step.
template <typename F, int kRows, int kColumns>
__device__ void multiply_accumulate(float (&sums)[kRows][kColumns][4], const uint32_t (&left)[kRows][4],
                                    const uint32_t (&right)[kColumns][2]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) instructions::multiply_accumulate<F>(sums[r][c], left[r], right[c]);
  }
}

}  // namespace sa_layers::cuda

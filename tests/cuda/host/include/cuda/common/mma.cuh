// Replaces csrc/cuda/common/mma.cuh: the threads of a warp exchange their fragments. How these lie in
// registers is written from the PTX ISA's sections on ldmatrix and on the fragments of mma.m16n8k16 and mma.m16n8k8,
// and from nothing else.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda/common/element.cuh"
#include "emulation.h"

#pragma GCC push_options
#pragma GCC optimize("O2")  // most of the emulation's time is spent here

namespace sa_layers::cuda {

struct TensorFloat {
  float number;
};

// cvt.rna.tf32.f32: to the nearest, ties away from zero.
inline void narrow(float number, TensorFloat& to) {
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  if (number == number) bits = (bits + 0x1000) & ~0x1fffu;
  std::memcpy(&to.number, &bits, sizeof bits);
}

template <typename F>
constexpr bool has_tensor_cores() {
  return true;
}

constexpr int kStepsAtOnce = 1;

namespace emulation_of_tensor_cores {

inline int lane_id() { return int(threadIdx.x) % 32; }

// Writes to the warp's next exchange buffer, and returns it when all threads have written.
template <typename ThreadPosition, typename Write>
const ThreadPosition& exchange(const Write& write) {
  static_assert(sizeof(ThreadPosition) <= sizeof(emulation::Warp::exchange[0]));
  emulation::Warp& warp = emulation::block->warps[threadIdx.x / 32];
  ThreadPosition& place = *reinterpret_cast<ThreadPosition*>(warp.exchange[warp.turn[threadIdx.x % 32]++ % 2]);
  write(place);
  warp.threads.arrive_and_wait();
  return place;
}

// "Threads 0-7: addresses of matrix 0; 8-15: matrix 1; 16-23: matrix 2; 24-31: matrix 3. Each thread receives a
// fragment of the row", 32 bits of it: row laneid / 4, and of that the elements 2 * (laneid % 4) and the next.
template <int kMatrices>
void load(const void* row, uint32_t (&words)[kMatrices]) {
  struct Rows {
    const void* addresses[32];
  };
  const Rows& rows = exchange<Rows>([&](Rows& place) { place.addresses[lane_id()] = row; });
  for (int matrix = 0; matrix < kMatrices; ++matrix) {
    const char* const from = static_cast<const char*>(rows.addresses[8 * matrix + lane_id() / 4]);
    if (reinterpret_cast<uintptr_t>(from) % 16) std::abort();  // as the device would
    std::memcpy(&words[matrix], from + lane_id() % 4 * 4, 4);
  }
}

// Elements of a fragment: two to a register, the first in the lower half, or one.
template <typename F>
float element(const uint32_t* registers, int i) {
  if constexpr (std::is_same_v<F, TensorFloat>) {
    const uint32_t bits = registers[i] & ~0x1fffu;  // the rest is ignored
    float number;
    std::memcpy(&number, &bits, 4);
    return number;
  } else {
    const uint16_t bits = uint16_t(registers[i / 2] >> (i % 2 * 16));
    F half;
    std::memcpy(&half, &bits, 2);
    return widen(half);
  }
}

}  // namespace emulation_of_tensor_cores

inline void load_matrices(const void* row, uint32_t (&words)[4]) { emulation_of_tensor_cores::load(row, words); }
inline void load_matrices(const void* row, uint32_t (&words)[2]) { emulation_of_tensor_cores::load(row, words); }

// ".trans": the matrix is loaded in column-major format, so that a thread has what it would have of the transpose.
inline void load_transposed_matrices(const void* row, uint32_t (&words)[4]) {
  using namespace emulation_of_tensor_cores;
  struct Rows {
    const void* addresses[32];
  };
  const Rows& rows = exchange<Rows>([&](Rows& place) { place.addresses[lane_id()] = row; });
  for (int matrix = 0; matrix < 4; ++matrix) {
    uint16_t halves[2];
    for (int i = 0; i < 2; ++i) {
      const void* const from = rows.addresses[8 * matrix + lane_id() % 4 * 2 + i];
      if (reinterpret_cast<uintptr_t>(from) % 16) std::abort();
      std::memcpy(&halves[i], static_cast<const char*>(from) + lane_id() / 4 * 2, 2);
    }
    std::memcpy(&words[matrix], halves, 4);
  }
}

inline bool any_of_warp(bool holds) {
  using namespace emulation_of_tensor_cores;
  struct Votes {
    bool of[32];
  };
  const Votes& votes = exchange<Votes>([&](Votes& place) { place.of[lane_id()] = holds; });
  for (const bool vote : votes.of) {
    if (vote) return true;
  }
  return false;
}

inline void named_barrier(int barrier, int warps) { emulation::block->wait(barrier, 32 * warps); }

template <typename F, int kRows, int kColumns>
void multiply_accumulate(float (&sums)[kRows][kColumns][4], const uint32_t (&left)[kRows][4],
                         const uint32_t (&right)[kColumns][2]) {
  using namespace emulation_of_tensor_cores;
  constexpr bool kHalf = sizeof(F) == 2;
  constexpr int kInner = kHalf ? 16 : 8;
  struct Matrices {
    float a[kRows][16][kInner], b[kColumns][kInner][8];
  };
  const int group_id = lane_id() >> 2, thread_in_group = lane_id() % 4;
  const Matrices& all = exchange<Matrices>([&](Matrices& place) {
    for (int i = 0; i < (kHalf ? 8 : 4); ++i) {
      // m16n8k16: "row = groupID for ai where 0 <= i < 2 || 4 <= i < 6, groupID + 8 otherwise;
      //            col = (threadID_in_group * 2) + (i & 0x1) for ai where i < 4, ... + 8 for ai where i >= 4"
      // m16n8k8 of .tf32: "row = groupID for a0 and a2, groupID + 8 for a1 and a3;
      //                    col = threadID_in_group for a0 and a1, threadID_in_group + 4 for a2 and a3"
      const bool upper = kHalf ? (0 <= i && i < 2) || (4 <= i && i < 6) : i == 0 || i == 2;
      const int row = upper ? group_id : group_id + 8;
      const int column = kHalf ? thread_in_group * 2 + (i & 1) + (i < 4 ? 0 : 8) : thread_in_group + (i < 2 ? 0 : 4);
      for (int r = 0; r < kRows; ++r) place.a[r][row][column] = element<F>(left[r], i);
    }
    for (int i = 0; i < (kHalf ? 4 : 2); ++i) {
      // m16n8k16: "row = (threadID_in_group * 2) + (i & 0x1) for bi where i < 2, ... + 8 for bi where i >= 2;
      //            col = groupID"
      // m16n8k8 of .tf32: "row = threadID_in_group for b0, threadID_in_group + 4 for b1; col = groupID"
      const int row = kHalf ? thread_in_group * 2 + (i & 1) + (i < 2 ? 0 : 8) : thread_in_group + (i < 1 ? 0 : 4);
      for (int c = 0; c < kColumns; ++c) place.b[c][row][group_id] = element<F>(right[c], i);
    }
  });
  for (int i = 0; i < 4; ++i) {
    // "row = groupID for ci where i < 2, groupID + 8 for ci where i >= 2; col = (threadID_in_group * 2) + (i & 0x1)"
    const int row = i < 2 ? group_id : group_id + 8, column = thread_in_group * 2 + (i & 1);
    for (int r = 0; r < kRows; ++r)
      for (int c = 0; c < kColumns; ++c)
        for (int k = 0; k < kInner; ++k) sums[r][c][i] += all.a[r][row][k] * all.b[c][k][column];
  }
}

template <typename F>
void multiply_accumulate(float (&sums)[4], const uint32_t (&left)[4], const uint32_t* right) {
  float all[1][1][4] = {{{sums[0], sums[1], sums[2], sums[3]}}};
  const uint32_t lefts[1][4] = {{left[0], left[1], left[2], left[3]}}, rights[1][2] = {{right[0], right[1]}};
  multiply_accumulate<F>(all, lefts, rights);
  for (int i = 0; i < 4; ++i) sums[i] = all[0][0][i];
}

// m16n8k8 of half precision: "row = groupID for ai where i < 2, groupID + 8 otherwise; col = threadID_in_group * 2 +
// (i & 0x1)" and "row = (threadID_in_group * 2) + i; col = groupID": as m16n8k16 with zeros behind.
template <typename F>
void multiply_accumulate_half_step(float (&sums)[4], const uint32_t (&left)[2], uint32_t right) {
  const uint32_t lefts[4] = {left[0], left[1], 0, 0}, rights[2] = {right, 0};
  multiply_accumulate<F>(sums, lefts, rights);
}

}  // namespace sa_layers::cuda

#pragma GCC pop_options

// Vectors of the target's instruction set, as vector extensions of GCC and clang: types, loads, stores, conversions.
#if defined(SA_LAYERS_CPU_SIMD_VECTOR_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_SIMD_VECTOR_H
#undef SA_LAYERS_CPU_SIMD_VECTOR_H
#else
#define SA_LAYERS_CPU_SIMD_VECTOR_H
#endif

#include <cstdint>

#include "cpu/runtime/element.h"
#include "cpu/simd/target.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
constexpr int kVectorBytes = 64;
#elif SA_LAYERS_TARGET == SA_LAYERS_AVX2
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// A constant that a generic lambda can use as a template argument.
template <auto kValue>
struct Constant {
  static constexpr auto value = kValue;
};

template <typename T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef int32_t integers __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef int64_t integers __attribute__((vector_size(kVectorBytes)));
};
// The vector in which elements of storage type T are computed.
template <typename T>
using Vector = typename VectorOf<Compute<T>>::type;
typedef typename VectorOf<float>::integers Bits;
typedef uint16_t HalfBits __attribute__((vector_size(kVectorBytes / 2)));

template <typename T>
constexpr int64_t kLanes = kVectorBytes / sizeof(Compute<T>);

// memcpy, since dereferencing a pointer to a vector would promise alignment.
template <typename To, typename From>
inline To bit_cast(const From& from) {
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}

template <typename T>
inline Vector<T> broadcast(Compute<T> value) {
  return value - Vector<T>{};  // an addition would not be the identity: -0 + 0 is 0
}

// Keeps a value that is used twice in a register; the compiler would load it twice.
#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
ALWAYS_INLINE void keep_in_register(Vector<float>& value) { asm("" : "+v"(value)); }
ALWAYS_INLINE void keep_in_register(Vector<double>& value) { asm("" : "+v"(value)); }
#else
ALWAYS_INLINE void keep_in_register(const Vector<float>&) {}
ALWAYS_INLINE void keep_in_register(const Vector<double>&) {}
#endif

// The larger, or the second where either is NaN.
ALWAYS_INLINE Vector<double> maximum(Vector<double> one, Vector<double> two) { return one > two ? one : two; }
ALWAYS_INLINE Vector<float> maximum(Vector<float> one, Vector<float> two) {
#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
  return _mm512_maskz_max_ps(0xffff, one, two);  // GCC 12 warns of undefined lanes in the form without a mask
#elif SA_LAYERS_TARGET == SA_LAYERS_AVX2
  return _mm256_max_ps(one, two);
#else
  return one > two ? one : two;
#endif
}

// NaN stays NaN, as in torch's ReLU.
ALWAYS_INLINE Vector<double> relu(Vector<double> x) { return maximum(Vector<double>{}, x); }
ALWAYS_INLINE Vector<float> relu(Vector<float> x) { return maximum(Vector<float>{}, x); }

inline Vector<double> load(const double* from) {
  Vector<double> to;
  __builtin_memcpy(&to, from, sizeof(to));
  return to;
}
inline Vector<float> load(const float* from) {
  Vector<float> to;
  __builtin_memcpy(&to, from, sizeof(to));
  return to;
}
inline Vector<float> load(const BFloat16* from) {
  HalfBits bits;
  __builtin_memcpy(&bits, from, sizeof(bits));
  return bit_cast<Vector<float>>(__builtin_convertvector(bits, Bits) << 16);
}
// A product rescales the exponent to float32's, which is right for subnormal numbers too.
inline Vector<float> load(const Half* from) {
  HalfBits half;
  __builtin_memcpy(&half, from, sizeof(half));
  const Bits bits = __builtin_convertvector(half, Bits);
  const Bits magnitude = (bits & 0x7fff) << 13;
  const Bits scaled = bit_cast<Bits>(bit_cast<Vector<float>>(magnitude) * 0x1p112f);
  const Bits infinite = magnitude >= (0x7c00 << 13);  // infinity and NaN
  return bit_cast<Vector<float>>(scaled | (infinite & 0x7f800000) | ((bits & 0x8000) << 16));
}

inline void store(double* to, Vector<double> from) { __builtin_memcpy(to, &from, sizeof(from)); }
inline void store(float* to, Vector<float> from) { __builtin_memcpy(to, &from, sizeof(from)); }
// The sum modulo 2^32: that of signed lanes is undefined where it overflows, as with the bits of a NaN.
inline Bits wrapping_sum(Bits one, Bits two) {
  typedef uint32_t Unsigned __attribute__((vector_size(kVectorBytes)));
  return bit_cast<Bits>(bit_cast<Unsigned>(one) + bit_cast<Unsigned>(two));
}
// Rounds to nearest, ties to even; a NaN keeps its top bits and becomes quiet.
inline void store(BFloat16* to, Vector<float> from) {
  const Bits bits = bit_cast<Bits>(from);
  const Bits rounded = wrapping_sum(bits, ((bits >> 16) & 1) + 0x7fff);
  const Bits is_nan = from != from;
  const Bits chosen = ((is_nan & (bits | 0x400000)) | (~is_nan & rounded)) >> 16;
  const HalfBits half = __builtin_convertvector(chosen & 0xffff, HalfBits);
  __builtin_memcpy(to, &half, sizeof(half));
}
inline void store(Half* to, Vector<float> from) {
  const Bits bits = bit_cast<Bits>(from), magnitude = bits & 0x7fffffff;
  // Normal numbers: rebias the exponent and round the 13 dropped bits to even; a carry moves into the exponent as it
  // should.
  const Bits normal = wrapping_sum(magnitude, ((magnitude >> 13) & 1) + (0xfff - (112 << 23))) >> 13;
  // Subnormal numbers: adding 0.5 aligns their last bit with float32's last bit, so that the addition rounds.
  const Bits subnormal = bit_cast<Bits>(bit_cast<Vector<float>>(magnitude) + 0.5f) - 0x3f000000;
  const Bits is_small = magnitude < (113 << 23), is_infinite = magnitude >= (143 << 23);
  const Bits is_nan = magnitude > 0x7f800000;
  Bits half = (is_small & subnormal) | (~is_small & normal);
  half = (is_infinite & (0x7c00 | (is_nan & 0x200))) | (~is_infinite & half);
  const HalfBits packed = __builtin_convertvector(half | ((bits >> 16) & 0x8000), HalfBits);
  __builtin_memcpy(to, &packed, sizeof(packed));
}

// Lanes of a vector: all of them, or begin <= lane < end. They are distinct types, so loops over full vectors need no
// branch. Inactive lanes load as zero and never access memory.
struct AllLanes {};
struct SomeLanes {
  int64_t begin, end;
};

template <typename T>
ALWAYS_INLINE Vector<T> load(const T* from, AllLanes) {
  return load(from);
}
template <typename T>
ALWAYS_INLINE void store(T* to, Vector<T> from, AllLanes) {
  store(to, from);
}
// Out of line, since the hot loops rarely get here.
template <typename T>
__attribute__((noinline)) void load_lane_by_lane(const T* from, SomeLanes lanes, Compute<T>* to) {
  T all[kLanes<T>] = {};
  for (int64_t i = lanes.begin; i < lanes.end; ++i) all[i] = from[i];
  store(to, load(all));
}
template <typename T>
__attribute__((noinline)) void store_lane_by_lane(T* to, const Compute<T>* from, SomeLanes lanes) {
  T all[kLanes<T>];
  store(all, load(from));
  for (int64_t i = lanes.begin; i < lanes.end; ++i) to[i] = all[i];
}
template <typename T>
ALWAYS_INLINE Vector<T> load(const T* from, SomeLanes lanes) {
  Compute<T> all[kLanes<T>];
  load_lane_by_lane(from, lanes, all);
  return load(all);
}
template <typename T>
ALWAYS_INLINE void store(T* to, Vector<T> from, SomeLanes lanes) {
  Compute<T> all[kLanes<T>];
  store(all, from);
  store_lane_by_lane(to, all, lanes);
}

#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
ALWAYS_INLINE uint16_t mask_of(SomeLanes lanes) { return ((1u << lanes.end) - 1) & ~((1u << lanes.begin) - 1); }
ALWAYS_INLINE Vector<float> load(const float* from, SomeLanes lanes) {
  return _mm512_maskz_loadu_ps(mask_of(lanes), from);
}
ALWAYS_INLINE void store(float* to, Vector<float> from, SomeLanes lanes) {
  _mm512_mask_storeu_ps(to, mask_of(lanes), from);
}
#elif SA_LAYERS_TARGET == SA_LAYERS_AVX2
ALWAYS_INLINE __m256i mask_of(SomeLanes lanes) {
  const Bits index = {0, 1, 2, 3, 4, 5, 6, 7};
  const Bits inside = (index >= static_cast<int32_t>(lanes.begin)) & (index < static_cast<int32_t>(lanes.end));
  return bit_cast<__m256i>(inside);
}
ALWAYS_INLINE Vector<float> load(const float* from, SomeLanes lanes) {
  return _mm256_maskload_ps(from, mask_of(lanes));
}
ALWAYS_INLINE void store(float* to, Vector<float> from, SomeLanes lanes) {
  _mm256_maskstore_ps(to, mask_of(lanes), from);
}
#endif

inline float load_one(const float* from) { return *from; }
inline double load_one(const double* from) { return *from; }
inline float load_one(const BFloat16* from) { return bit_cast<float>(static_cast<uint32_t>(from->bits) << 16); }
// As load() does.
inline float load_one(const Half* from) {
  const uint32_t magnitude = (from->bits & 0x7fffu) << 13, sign = (from->bits & 0x8000u) << 16;
  const uint32_t scaled = bit_cast<uint32_t>(bit_cast<float>(magnitude) * 0x1p112f);
  const uint32_t infinite = magnitude >= (0x7c00u << 13) ? 0x7f800000u : 0;
  return bit_cast<float>(scaled | infinite | sign);
}

// Converts contiguous elements from one storage type to another.
template <typename From, typename To>
inline void convert_run(const From* from, To* to, int64_t count) {
  constexpr int64_t lanes = kLanes<From>;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(to + i, load(from + i));
  const SomeLanes rest{0, count - i};
  if (i < count) store(to + i, load(from + i, rest), rest);
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_SIMD_VECTOR_H

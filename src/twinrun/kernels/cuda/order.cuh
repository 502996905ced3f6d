// The sum of one vector over all ranks, in a stated order.
//
// ORDER_RANKS: float32, ((x0 + x1) + x2) + ..., rounded once at the end.
// ORDER_TREE:  pairs, rounded to the tensor's dtype at every level: ((0+1)+(2+3)), ((0+1)+2),
//              (((0+1)+(2+3))+(4+5)).
// Both start from a rank's own value, never from zero, so a sum of -0.0 stays -0.0.
#pragma once
#include "ptx.cuh"

#if defined(DTYPE_FLOAT32)
constexpr u32 ELEMENT_BYTES = 4;
#elif defined(DTYPE_FLOAT16) || defined(DTYPE_BFLOAT16)
constexpr u32 ELEMENT_BYTES = 2;
#else
#error "define DTYPE_FLOAT32, DTYPE_FLOAT16 or DTYPE_BFLOAT16"
#endif
#if !defined(WORLD) || WORLD < 2 || WORLD > 8
#error "define WORLD as 2 to 8"
#endif
#if !defined(ORDER_RANKS) && !defined(ORDER_TREE)
#error "define ORDER_RANKS or ORDER_TREE"
#endif

constexpr u32 VECTOR_BYTES = 16;
constexpr u32 VECTOR_ELEMENTS = VECTOR_BYTES / ELEMENT_BYTES;

struct Floats {
  float value[VECTOR_ELEMENTS];
};

__device__ __forceinline__ Floats unpack(const Vector& v) {
  Floats f;
#pragma unroll
  for (u32 i = 0; i < 4; ++i) {
#if defined(DTYPE_FLOAT32)
    f.value[i] = __uint_as_float(v.word[i]);
#elif defined(DTYPE_BFLOAT16)
    f.value[2 * i] = __uint_as_float(v.word[i] << 16);
    f.value[2 * i + 1] = __uint_as_float(v.word[i] & 0xffff0000u);
#else
    f.value[2 * i] = float16_value(u16(v.word[i]));
    f.value[2 * i + 1] = float16_value(u16(v.word[i] >> 16));
#endif
  }
  return f;
}

__device__ __forceinline__ Vector pack(const Floats& f) {
  Vector v;
#pragma unroll
  for (u32 i = 0; i < 4; ++i) {
#if defined(DTYPE_FLOAT32)
    v.word[i] = __float_as_uint(f.value[i]);
#elif defined(DTYPE_BFLOAT16)
    v.word[i] = pack_bfloat16(f.value[2 * i], f.value[2 * i + 1]);
#else
    v.word[i] = pack_float16(f.value[2 * i], f.value[2 * i + 1]);
#endif
  }
  return v;
}

__device__ __forceinline__ void add(Floats& sum, const Floats& more) {
#pragma unroll
  for (u32 i = 0; i < VECTOR_ELEMENTS; ++i) sum.value[i] += more.value[i];
}

__device__ __forceinline__ Vector sum_in_order(const Vector (&part)[WORLD]) {
#if defined(ORDER_RANKS)
  Floats sum = unpack(part[0]);
#pragma unroll
  for (u32 r = 1; r < WORLD; ++r) add(sum, unpack(part[r]));
  return pack(sum);
#else
  Vector node[WORLD];
#pragma unroll
  for (u32 r = 0; r < WORLD; ++r) node[r] = part[r];
#pragma unroll
  for (u32 gap = 1; gap < WORLD; gap *= 2) {
#pragma unroll
    for (u32 r = 0; r + gap < WORLD; r += 2 * gap) {
      Floats sum = unpack(node[r]);
      add(sum, unpack(node[r + gap]));
      node[r] = pack(sum);
    }
  }
  return node[0];
#endif
}

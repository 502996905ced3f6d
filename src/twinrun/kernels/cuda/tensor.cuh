// A tensor as 16-byte vectors: whole ones where it is aligned, elements one by one at its tail
// and where it is not. WHOLE promises that there is no tail and everything is aligned, which is
// nearly always so and leaves a kernel a third of its length.
#pragma once
#include "order.cuh"

struct Tensor {
  u64 address;
  u32 elements;
  bool aligned;

  __device__ __forceinline__ Tensor(u64 address, u32 elements)
      : address(address), elements(elements), aligned(address % VECTOR_BYTES == 0) {}

  __device__ __forceinline__ bool whole(u32 v) const {
#if defined(WHOLE)
    return true;
#else
    return aligned && v < elements / VECTOR_ELEMENTS;
#endif
  }
};

__device__ __forceinline__ u32 vectors_of(u32 elements) {
  return elements / VECTOR_ELEMENTS + (elements % VECTOR_ELEMENTS != 0);
}

__device__ __forceinline__ u32 load_element(u64 address) {
#if defined(DTYPE_FLOAT32)
  return load_word(address);
#else
  return load_half_word(address);
#endif
}

__device__ __forceinline__ void store_element(u64 address, u32 bits) {
#if defined(DTYPE_FLOAT32)
  store_word(address, bits);
#else
  store_half_word(address, u16(bits));
#endif
}

// The slow way, inlined and rolled: a call would cost the fast way registers.
__device__ __forceinline__ Vector load_elements(u64 address, u32 first, u32 elements) {
  u64 half[2] = {0, 0};
#pragma unroll
  for (u32 h = 0; h < 2; ++h) {
    const u32 start = first + h * (VECTOR_ELEMENTS / 2);
#pragma unroll 1
    for (u32 e = 0; e < VECTOR_ELEMENTS / 2 && start + e < elements; ++e)
      half[h] |= u64(load_element(address + u64(start + e) * ELEMENT_BYTES))
                 << (8 * ELEMENT_BYTES * e);
  }
  return {u32(half[0]), u32(half[0] >> 32), u32(half[1]), u32(half[1] >> 32)};
}

__device__ __forceinline__ void store_elements(u64 address, u32 first, u32 elements,
                                               const Vector& v) {
#pragma unroll
  for (u32 h = 0; h < 2; ++h) {
    const u64 half = u64(v.word[2 * h + 1]) << 32 | v.word[2 * h];
    const u32 start = first + h * (VECTOR_ELEMENTS / 2);
#pragma unroll 1
    for (u32 e = 0; e < VECTOR_ELEMENTS / 2 && start + e < elements; ++e)
      store_element(address + u64(start + e) * ELEMENT_BYTES, u32(half >> (8 * ELEMENT_BYTES * e)));
  }
}

__device__ __forceinline__ Vector load(const Tensor& t, u32 v) {
  if (__builtin_expect(t.whole(v), 1)) return load_own(t.address + u64(v) * VECTOR_BYTES);
  return load_elements(t.address, v * VECTOR_ELEMENTS, t.elements);
}

__device__ __forceinline__ void store(const Tensor& t, u32 v, const Vector& value) {
  if (__builtin_expect(t.whole(v), 1))
    store_own(t.address + u64(v) * VECTOR_BYTES, value);
  else
    store_elements(t.address, v * VECTOR_ELEMENTS, t.elements, value);
}

// The same on another GPU's tensor.
__device__ __forceinline__ Vector load_remote(const Tensor& t, u32 v) {
  if (__builtin_expect(t.whole(v), 1)) return load_from_any_gpu(t.address + u64(v) * VECTOR_BYTES);
  return load_elements(t.address, v * VECTOR_ELEMENTS, t.elements);
}

__device__ __forceinline__ void store_remote(const Tensor& t, u32 v, const Vector& value) {
  if (__builtin_expect(t.whole(v), 1))
    store_to_any_gpu(t.address + u64(v) * VECTOR_BYTES, value);
  else
    store_elements(t.address, v * VECTOR_ELEMENTS, t.elements, value);
}

// The instructions that C++ has no word for, each under a name that says what it is for.
// Nothing here includes a CUDA header, so NVRTC needs no toolkit beside it.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct alignas(16) Vector {
  u32 word[4];
};

// Programmatic dependent launch: this kernel may be resident before the one ahead of it has ended.
// Nothing of the tensors may be touched before this returns.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void allow_next_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Strong loads and stores go to the second-level cache, where writes of other GPUs land too.
__device__ __forceinline__ Vector load_from_any_gpu(u64 address) {
  Vector v;
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
               : "l"(address));
  return v;
}

__device__ __forceinline__ void store_to_any_gpu(u64 address, const Vector& v) {
  asm volatile("st.relaxed.sys.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address),
               "r"(v.word[0]), "r"(v.word[1]), "r"(v.word[2]), "r"(v.word[3]));
}

// The input was written by an earlier kernel of this GPU, perhaps on another multiprocessor while
// this one was already resident: read past the first-level cache.
__device__ __forceinline__ Vector load_own(u64 address) {
  Vector v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
               : "l"(address));
  return v;
}

__device__ __forceinline__ void store_own(u64 address, const Vector& v) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(v.word[0]),
               "r"(v.word[1]), "r"(v.word[2]), "r"(v.word[3]));
}

__device__ __forceinline__ u32 load_word(u64 address) {
  u32 word;
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(word) : "l"(address));
  return word;
}

__device__ __forceinline__ void store_word(u64 address, u32 word) {
  asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(address), "r"(word));
}

__device__ __forceinline__ u16 load_half_word(u64 address) {
  u16 half;
  asm volatile("ld.relaxed.sys.global.u16 %0, [%1];" : "=h"(half) : "l"(address));
  return half;
}

__device__ __forceinline__ void store_half_word(u64 address, u16 half) {
  asm volatile("st.relaxed.sys.global.u16 [%0], %1;" ::"l"(address), "h"(half));
}

__device__ __forceinline__ u64 load_address(u64 address) {
  u64 value;
  asm volatile("ld.relaxed.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(address));
  return value;
}

__device__ __forceinline__ void fence_system() { asm volatile("fence.acq_rel.sys;" ::: "memory"); }

__device__ __forceinline__ u64 nanoseconds() {
  u64 now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

__device__ __forceinline__ u32 pack_bfloat16(float low, float high) {
  u32 word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}

__device__ __forceinline__ u32 pack_float16(float low, float high) {
  u32 word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}

__device__ __forceinline__ float float16_value(u16 bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

// Inputs that every rank can work out for every other, and the check of a sum against them.
#include "order.cuh"

struct Stress {
  u64 input;
  u64 output;
  u64 round; // u32: how often the graph has run
  u64 wrong; // u64: elements that differ
  u32 elements;
  u32 seed; // which operation of the graph
  u32 rank;
  u32 delay; // nothing, or a mask of nanoseconds
};

__device__ __forceinline__ u32 mix(u32 a) {
  a = (a ^ (a >> 16)) * 0x7feb352du;
  a = (a ^ (a >> 15)) * 0x846ca68bu;
  return a ^ (a >> 16);
}

// Numbers over 16 to 32 binary orders of magnitude; now and then -0.0, an infinity or the NaN
// whose bits are all set.
__device__ __forceinline__ u32 element(u32 seed, u32 round, u32 rank, u32 index) {
  const u32 h = mix(mix(mix(seed * 0x9e3779b9u + round) + rank * 0x85ebca6bu) + index);
  const u32 kind = mix(h) % 1024;
#if defined(DTYPE_FLOAT32)
  if (kind < 3) return kind == 0 ? 0x80000000u : kind == 1 ? 0x7f800000u : 0xffffffffu;
  return (h & 0x807fffffu) | ((107 + ((h >> 23) & 31)) << 23);
#elif defined(DTYPE_BFLOAT16)
  if (kind < 3) return kind == 0 ? 0x8000u : kind == 1 ? 0x7f80u : 0xffffu;
  return (h & 0x807fu) | ((107 + ((h >> 7) & 31)) << 7);
#else
  if (kind < 3) return kind == 0 ? 0x8000u : kind == 1 ? 0x7c00u : 0xffffu;
  return (h & 0x83ffu) | ((5 + ((h >> 10) & 15)) << 10);
#endif
}

__device__ __forceinline__ bool is_nan(u32 bits) {
#if defined(DTYPE_FLOAT32)
  return (bits & 0x7fffffffu) > 0x7f800000u;
#elif defined(DTYPE_BFLOAT16)
  return (bits & 0x7fffu) > 0x7f80u;
#else
  return (bits & 0x7fffu) > 0x7c00u;
#endif
}

__device__ __forceinline__ void put(u64 address, u32 index, u32 bits) {
#if defined(DTYPE_FLOAT32)
  reinterpret_cast<u32*>(address)[index] = bits;
#else
  reinterpret_cast<u16*>(address)[index] = u16(bits);
#endif
}

__device__ __forceinline__ u32 get(u64 address, u32 index) {
#if defined(DTYPE_FLOAT32)
  return reinterpret_cast<const u32*>(address)[index];
#else
  return reinterpret_cast<const u16*>(address)[index];
#endif
}

extern "C" __global__ void fill(const __grid_constant__ Stress args) {
  const u32 round = *reinterpret_cast<const u32*>(args.round);
  if (args.delay && threadIdx.x == 0 && mix(args.seed + round * 977 + args.rank * 31) % 8 == 0) {
    const u64 until = nanoseconds() + (mix(round + args.rank) & args.delay);
    while (nanoseconds() < until) {
    }
  }
  __syncthreads();
  for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < args.elements; i += gridDim.x * blockDim.x)
    put(args.input, i, element(args.seed, round, args.rank, i));
}

extern "C" __global__ void check(const __grid_constant__ Stress args) {
  const u32 round = *reinterpret_cast<const u32*>(args.round);
  u32 wrong = 0;
  for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < args.elements;
       i += gridDim.x * blockDim.x) {
    Vector part[WORLD] = {};
#pragma unroll
    for (u32 r = 0; r < WORLD; ++r) part[r].word[0] = element(args.seed, round, r, i);
    u32 wanted = sum_in_order(part).word[0];
    if (ELEMENT_BYTES == 2) wanted &= 0xffffu;
    const u32 seen = get(args.output, i);
    wrong += seen != wanted && !(is_nan(seen) && is_nan(wanted));
    put(args.output, i, 0x5a5a5a5au); // what is not written next time is found
  }
  if (wrong) atomicAdd(reinterpret_cast<u64*>(args.wrong), u64(wrong));
}

extern "C" __global__ void count(const __grid_constant__ Stress args) {
  *reinterpret_cast<u32*>(args.round) += 1;
}

// What every all-reduce kernel is told, and how a workspace is laid out.
// kernels/arguments.py holds the same two lists; tests compare them.
#pragma once
#include "tensor.cuh"

constexpr u32 MAX_WORLD = 8;
constexpr u32 MAX_BLOCKS = 512;
constexpr u32 MAX_THREADS = 512;
// Of a multiprocessor, so at most 40, 64 or 128 registers a thread; kernels/arguments.py counts on it.
constexpr u32 MIN_BLOCKS = WORLD == 2 ? 3 : WORLD <= 4 ? 2 : 1;

constexpr u64 PUSH_EPOCHS = 0;                               // u32[MAX_BLOCKS], all equal
constexpr u64 BARRIER_EPOCHS = PUSH_EPOCHS + 4 * MAX_BLOCKS; // u32[MAX_BLOCKS], all equal
constexpr u64 BARRIER_FLAGS = BARRIER_EPOCHS + 4 * MAX_BLOCKS; // u32[MAX_BLOCKS][MAX_WORLD]
constexpr u64 SLOTS = BARRIER_FLAGS + 4 * MAX_BLOCKS * MAX_WORLD;

// Let the next kernel become resident while this one still waits for other ranks. Only where the
// grids of three such kernels fit on the GPU at once (collectives/kernel_set.py); else it comes in
// when nothing is waited for any more.
constexpr u32 FLAG_EARLY = 1;

struct Arguments {
  u64 workspace[MAX_WORLD]; // every rank's workspace, as this rank addresses it
  u64 input;                // [elements], this rank's
  u64 output;               // [elements], this rank's; may be the input
  u64 row;                  // two_shot_pull: u64[2][WORLD], every rank's input and output
  u64 slot_bytes;
  u64 report;               // checked: u32[4] in host memory
  u64 timeout_ns;           // checked
  u32 elements;
  u32 rank;
  u32 flags;
  u32 call;                 // checked: which call this is, for the report
};

__device__ __forceinline__ u32 after(u32 rank, u32 steps) {
  u32 r = rank + steps;
  return r >= WORLD ? r - WORLD : r;
}

// The epoch of this block; every call advances the words of all blocks, used or not, so that
// they stay equal whatever the grids of the calls were.
__device__ __forceinline__ u32 load_epoch(const Arguments& args, u64 epochs) {
  return load_word(args.workspace[args.rank] + epochs + 4 * blockIdx.x);
}

__device__ __forceinline__ void store_epoch(const Arguments& args, u64 epochs, u32 epoch) {
  for (u32 c = blockIdx.x + threadIdx.x * gridDim.x; c < MAX_BLOCKS; c += blockDim.x * gridDim.x)
    store_word(args.workspace[args.rank] + epochs + 4 * c, epoch);
}

// A wait that ends: in checked mode a rank that does not come is reported, and the kernel goes on
// with whatever is there; the host sees the report and refuses the object from then on.
struct Patience {
#if defined(CHECKED)
  u64 began = nanoseconds();
#endif
  __device__ __forceinline__ bool lost(const Arguments& args, u32 missing, u32 stage) {
#if defined(CHECKED)
    if (nanoseconds() - began < args.timeout_ns) return false;
    volatile u32* report = reinterpret_cast<volatile u32*>(args.report);
    report[1] = missing;
    report[2] = stage;
    report[3] = args.call;
    fence_system();
    report[0] = 1;
    return true;
#else
    return false;
#endif
  }
};

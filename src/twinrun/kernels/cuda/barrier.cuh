// A barrier between the blocks of one number on all ranks: block b waits for block b only.
#pragma once
#include "arguments.cuh"

__device__ __forceinline__ u64 barrier_flag(const Arguments& args, u32 receiver, u32 sender) {
  return args.workspace[receiver] + BARRIER_FLAGS + 4 * (blockIdx.x * MAX_WORLD + sender);
}

// With `ordered`, what this block wrote before is seen by the other blocks after it. Without, it
// only says that the others have come as far (what earlier kernels wrote is visible anyway).
__device__ __forceinline__ void barrier(const Arguments& args, u32 epoch, bool ordered, u32 stage) {
  __syncthreads();
  const u32 peer = threadIdx.x;
  if (peer < WORLD && peer != args.rank) {
    if (ordered) fence_system();
    store_word(barrier_flag(args, peer, args.rank), epoch);
    const u64 flag = barrier_flag(args, args.rank, peer);
    Patience patience;
    while (int(load_word(flag) - epoch) < 0 && !patience.lost(args, peer, stage)) {
    }
    if (ordered) fence_system();
  }
  __syncthreads();
}

// Rank j reads shard j of every rank's input where it lies, sums, and writes the sum into every
// rank's output where it lies. Nobody else touches shard j, so input and output may be one tensor
// and no barrier is needed between the two halves.
#include "barrier.cuh"

constexpr u32 UNROLL = WORLD > 4 ? 1 : 2; // vectors of each rank that a thread has in flight

extern "C" __global__ void __launch_bounds__(MAX_THREADS, MIN_BLOCKS)
    two_shot_pull(const __grid_constant__ Arguments args) {
  const u32 vectors = vectors_of(args.elements);
  const u32 length = ((vectors + WORLD - 1) / WORLD + 7) / 8 * 8;
  const u32 first = min(args.rank * length, vectors), last = min(first + length, vectors);
  const u32 stride = gridDim.x * blockDim.x;

  u64 input[WORLD], output[WORLD];
#pragma unroll
  for (u32 r = 0; r < WORLD; ++r) {
    input[r] = load_address(args.row + 8 * r);
    output[r] = load_address(args.row + 8 * (WORLD + r));
  }
  wait_for_previous_kernel();
  if (args.flags & FLAG_EARLY) allow_next_kernel();
  const u32 epoch = load_epoch(args, BARRIER_EPOCHS);
  barrier(args, epoch + 1, false, 1);

  for (u32 v = first + blockIdx.x * blockDim.x + threadIdx.x; v < last; v += stride * UNROLL) {
    Vector part[UNROLL][WORLD];
#pragma unroll
    for (u32 i = 0; i < UNROLL; ++i)
#pragma unroll
      for (u32 r = 0; r < WORLD; ++r)
        if (v + i * stride < last)
          part[i][r] = load_remote(Tensor(input[r], args.elements), v + i * stride);
#pragma unroll
    for (u32 i = 0; i < UNROLL; ++i) {
      if (v + i * stride >= last) break;
      const Vector sum = sum_in_order(part[i]);
#pragma unroll
      for (u32 r = 0; r < WORLD; ++r)
        store_remote(Tensor(output[r], args.elements), v + i * stride, sum);
    }
  }
  barrier(args, epoch + 2, true, 2);
  allow_next_kernel();
  store_epoch(args, BARRIER_EPOCHS, epoch + 2);
}

// The older way: copy the input where others can read it, a barrier, everyone sums everything.
// The barrier at the end is for who closes next: a rank that is done may free its memory.
#include "barrier.cuh"

extern "C" __global__ void __launch_bounds__(MAX_THREADS, MIN_BLOCKS)
    ipc_one_stage(const __grid_constant__ Arguments args) {
  const Tensor input(args.input, args.elements), output(args.output, args.elements);
  const u32 vectors = vectors_of(args.elements);
  const u32 stride = gridDim.x * blockDim.x;
  const u32 begin = blockIdx.x * blockDim.x + threadIdx.x;

  wait_for_previous_kernel();
  const u32 epoch = load_epoch(args, BARRIER_EPOCHS);
  const u64 slot = SLOTS;
  for (u32 v = begin; v < vectors; v += stride)
    store_own(args.workspace[args.rank] + slot + u64(v) * VECTOR_BYTES, load(input, v));
  barrier(args, epoch + 1, true, 1);
  for (u32 v = begin; v < vectors; v += stride) {
    Vector part[WORLD];
#pragma unroll
    for (u32 r = 0; r < WORLD; ++r)
      part[r] = load_from_any_gpu(args.workspace[r] + slot + u64(v) * VECTOR_BYTES);
    store(output, v, sum_in_order(part));
  }
  barrier(args, epoch + 2, true, 2);
  store_epoch(args, BARRIER_EPOCHS, epoch + 2);
}

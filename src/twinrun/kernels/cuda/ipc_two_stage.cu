// The older way for more bytes: copy the input where others can read it, barrier, each rank sums
// its shard into a place where others can read it, barrier, everyone collects the shards.
#include "barrier.cuh"

extern "C" __global__ void __launch_bounds__(MAX_THREADS, MIN_BLOCKS)
    ipc_two_stage(const __grid_constant__ Arguments args) {
  const Tensor input(args.input, args.elements), output(args.output, args.elements);
  const u32 vectors = vectors_of(args.elements);
  const u32 length = ((vectors + WORLD - 1) / WORLD + 7) / 8 * 8;
  const u32 stride = gridDim.x * blockDim.x;
  const u32 begin = blockIdx.x * blockDim.x + threadIdx.x;

  wait_for_previous_kernel();
  const u32 epoch = load_epoch(args, BARRIER_EPOCHS);
  const u64 slot = SLOTS;
  const u64 sums = slot + u64(vectors) * VECTOR_BYTES;
  for (u32 p = begin; p < length; p += stride)
#pragma unroll
    for (u32 owner = 0; owner < WORLD; ++owner) {
      const u32 v = owner * length + p;
      if (v < vectors)
        store_own(args.workspace[args.rank] + slot + u64(v) * VECTOR_BYTES, load(input, v));
    }
  barrier(args, epoch + 1, true, 1);
  for (u32 p = begin; p < length; p += stride) {
    const u32 v = args.rank * length + p;
    if (v >= vectors) break;
    Vector part[WORLD];
#pragma unroll
    for (u32 r = 0; r < WORLD; ++r)
      part[r] = load_from_any_gpu(args.workspace[r] + slot + u64(v) * VECTOR_BYTES);
    store_own(args.workspace[args.rank] + sums + u64(p) * VECTOR_BYTES, sum_in_order(part));
  }
  barrier(args, epoch + 2, true, 2);
  for (u32 p = begin; p < length; p += stride)
#pragma unroll
    for (u32 owner = 0; owner < WORLD; ++owner) {
      const u32 v = owner * length + p;
      if (v < vectors)
        store(output, v,
              load_from_any_gpu(args.workspace[owner] + sums + u64(p) * VECTOR_BYTES));
    }
  // For who closes next: a rank that is done may free its memory.
  barrier(args, epoch + 3, true, 3);
  store_epoch(args, BARRIER_EPOCHS, epoch + 3);
}

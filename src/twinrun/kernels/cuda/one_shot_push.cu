// Every rank sends its whole tensor to every other; each sums for itself.
#include "mailbox.cuh"

extern "C" __global__ void __launch_bounds__(MAX_THREADS, MIN_BLOCKS)
    one_shot_push(const __grid_constant__ Arguments args) {
  const Tensor input(args.input, args.elements), output(args.output, args.elements);
  const u32 vectors = vectors_of(args.elements);
  const u32 stride = gridDim.x * blockDim.x;
  u32 v = blockIdx.x * blockDim.x + threadIdx.x;
  const Mailbox mail(args, vectors);

  wait_for_previous_kernel();
  if (args.flags & FLAG_EARLY) allow_next_kernel();
  // The first load is on its way together with the epoch's, and not after it.
  const u32 epoch = load_epoch(args, PUSH_EPOCHS);
  Vector own = {};
  if (v < vectors) own = load(input, v);
  const u64 slot = (epoch & 1) * args.slot_bytes;
  if (v < vectors) mail.send_to_all(slot + u64(v) * VECTOR_BYTES, own);
  __syncthreads(); // every thread has read the epoch
  store_epoch(args, PUSH_EPOCHS, epoch + 1);

  // One vector is always on its way while the one before it is awaited.
  while (v < vectors) {
    const u32 next = v + stride;
    Vector ahead = {};
    if (next < vectors) {
      ahead = load(input, next);
      mail.send_to_all(slot + u64(next) * VECTOR_BYTES, ahead);
    }
    Vector part[WORLD];
    mail.receive(args, slot + u64(v) * VECTOR_BYTES, 1, own, part, Everyone());
    if (next >= vectors) allow_next_kernel(); // nothing is waited for any more
    store(output, v, sum_in_order(part));
    own = ahead;
    v = next;
  }
}

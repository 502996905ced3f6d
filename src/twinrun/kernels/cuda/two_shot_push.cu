// Rank j owns shard j: everyone sends it their part of that shard, it sums, and sends the sum to
// everyone. Both times the data is its own flag. A slot holds the lanes of the parts, then those
// of the sums.
#include "mailbox.cuh"

struct Shards {
  u32 vectors; // of the whole tensor
  u32 length;  // of a shard; a multiple of 8 vectors, so that a warp's rows start on 128 bytes

  __device__ __forceinline__ Shards(u32 vectors)
      : vectors(vectors), length(((vectors + WORLD - 1) / WORLD + 7) / 8 * 8) {}
  __device__ __forceinline__ u32 at(u32 owner, u32 p) const { return owner * length + p; }
  __device__ __forceinline__ bool has(u32 owner, u32 p) const { return at(owner, p) < vectors; }
};

struct TwoShots {
  const Arguments& args;
  const Tensor input, output;
  const Shards shards;
  const Mailbox mail;
  u64 parts, sums; // offsets of the two halves of the slot

  __device__ __forceinline__ TwoShots(const Arguments& args)
      : args(args),
        input(args.input, args.elements),
        output(args.output, args.elements),
        shards(vectors_of(args.elements)),
        mail(args, shards.length) {}

  __device__ __forceinline__ void use_slot_of(u32 epoch) {
    parts = (epoch & 1) * args.slot_bytes;
    sums = parts + (WORLD - 1) * mail.lane_bytes;
  }

  // Where vector p of the k-th next rank's shard lies; 1 where there is none.
  __device__ __forceinline__ u64 place(u32 k, u32 p) const {
    const u32 owner = after(mail.rank, k);
    return shards.has(owner, p) ? input.address + u64(shards.at(owner, p)) * VECTOR_BYTES : 1;
  }

  // Vector p of every rank's shard, this rank's own first.
  __device__ __forceinline__ void read(u32 p, Vector (&mine)[WORLD]) const {
#pragma unroll
    for (u32 k = 0; k < WORLD; ++k) {
      const u32 owner = after(mail.rank, k);
      mine[k] = Vector{};
      if (shards.has(owner, p)) mine[k] = load(input, shards.at(owner, p));
    }
  }

  __device__ __forceinline__ void scatter(u32 p, const Vector (&mine)[WORLD]) const {
#pragma unroll
    for (u32 k = 1; k < WORLD; ++k)
      if (shards.has(after(mail.rank, k), p)) mail.send(k, parts + u64(p) * VECTOR_BYTES, mine[k]);
  }

  __device__ __forceinline__ void reduce(u32 p, const Vector& own) const {
    if (!shards.has(mail.rank, p)) return;
    Vector part[WORLD];
    mail.receive(args, parts + u64(p) * VECTOR_BYTES, 1, own, part, Everyone());
    const Vector sum = sum_in_order(part);
    mail.send_to_all(sums + u64(p) * VECTOR_BYTES, sum);
    store(output, shards.at(mail.rank, p), sum);
  }

  __device__ __forceinline__ void gather(u32 p, bool last) const {
    Vector part[WORLD];
    auto wanted = [&](u32 owner) { return shards.has(owner, p); };
    mail.receive(args, sums + u64(p) * VECTOR_BYTES, 2, Vector{}, part, wanted);
    if (last) allow_next_kernel(); // nothing is waited for any more
#pragma unroll
    for (u32 r = 0; r < WORLD; ++r)
      if (r != mail.rank && wanted(r)) store(output, shards.at(r, p), part[r]);
  }
};

extern "C" __global__ void __launch_bounds__(MAX_THREADS, MIN_BLOCKS)
    two_shot_push(const __grid_constant__ Arguments args) {
  TwoShots work(args);
  const u32 stride = gridDim.x * blockDim.x;
  const u32 length = work.shards.length;
  u32 p = blockIdx.x * blockDim.x + threadIdx.x;

#if defined(WHOLE)
  u64 first[WORLD], all = ~u64(0);
#pragma unroll
  for (u32 k = 0; k < WORLD; ++k) all = min(all, first[k] = work.place(k, p));
  need_now(all);
#endif

  wait_for_previous_kernel();
  if (args.flags & FLAG_EARLY) allow_next_kernel();
  const u32 epoch = load_epoch(args, PUSH_EPOCHS);
  // The first loads are on their way together with the epoch's, and not after it.
  Vector mine[WORLD] = {};
#if defined(WHOLE)
#pragma unroll
  for (u32 k = 0; k < WORLD; ++k)
    if (p < length && first[k] != 1) mine[k] = load_own(first[k]);
#else
  if (p < length) work.read(p, mine);
#endif
  work.use_slot_of(epoch);
  if (p < length) work.scatter(p, mine);
  Vector own = mine[0];
  __syncthreads(); // every thread has read the epoch
  store_epoch(args, PUSH_EPOCHS, epoch + 1);

  // Vector p is summed while p + stride is on its way and p - stride comes back.
  u32 behind = length;
  while (p < length) {
    const u32 next = p + stride;
    if (next < length) {
      work.read(next, mine);
      work.scatter(next, mine);
    }
    work.reduce(p, own);
    if (behind < length) work.gather(behind, false);
    own = mine[0];
    behind = p;
    p = next;
  }
  if (behind < length) work.gather(behind, true);
}

// Mail between ranks in which the data is its own flag.
//
// A slot is full of EMPTY words. A sender writes vectors into a receiver's slot; the receiver
// reads until no word is EMPTY, and puts EMPTY back. No flag, no fence, no barrier. Senders never
// send the EMPTY word: it is a NaN in all three dtypes and leaves as another NaN.
//
// There are two slots, used in turn. A rank that fills slot e % 2 in call e has ended call e - 1,
// in which it heard from every rank; each of those had therefore begun call e - 1, hence ended
// call e - 2 with its clearing. docs/all-reduce.md says it at length; tests/models checks it.
#pragma once
#include "arguments.cuh"

constexpr u32 EMPTY = 0xffffffffu;

__device__ __forceinline__ bool incomplete(const Vector& v) {
  return max(max(v.word[0], v.word[1]), max(v.word[2], v.word[3])) == EMPTY;
}

__device__ __forceinline__ Vector sendable(const Vector& v) {
  return {min(v.word[0], EMPTY - 1), min(v.word[1], EMPTY - 1), min(v.word[2], EMPTY - 1),
          min(v.word[3], EMPTY - 1)};
}

// The lane of a sender among the WORLD - 1 lanes of a receiver's slot.
__device__ __forceinline__ u32 lane_of(u32 sender, u32 receiver) {
  return sender - (sender > receiver);
}

// No address here is ever 0. Testing it makes the compiler work it out before the wait for the
// kernel ahead, where that costs nothing, and not after it.
__device__ __forceinline__ void need_now(u64 address) {
  if (__builtin_expect(address == 0, 0)) __trap();
}

struct Mailbox {
  u64 to[WORLD]; // to[k]: this rank's lane at the k-th rank after it, in slot 0; to[0] unused
  u64 from;      // this rank's own slot 0
  u64 lane_bytes;
  u32 rank;

  __device__ __forceinline__ Mailbox(const Arguments& args, u32 lane_vectors)
      : lane_bytes(u64(lane_vectors) * VECTOR_BYTES), rank(args.rank) {
#pragma unroll
    for (u32 k = 1; k < WORLD; ++k) {
      const u32 receiver = after(rank, k);
      to[k] = args.workspace[receiver] + SLOTS + lane_of(rank, receiver) * lane_bytes;
    }
    from = args.workspace[rank] + SLOTS;
    u64 all = from;
#pragma unroll
    for (u32 k = 1; k < WORLD; ++k) all = min(all, to[k]);
    need_now(all);
  }

  // `at` is an offset in bytes: slot, part of the slot and vector.
  __device__ __forceinline__ void send(u32 k, u64 at, const Vector& value) const {
    store_to_any_gpu(to[k] + at, sendable(value));
  }

  // Everyone starts with the rank after its own, so that no receiver is everyone's first.
  __device__ __forceinline__ void send_to_all(u64 at, const Vector& value) const {
#pragma unroll
    for (u32 k = 1; k < WORLD; ++k) send(k, at, value);
  }

  __device__ __forceinline__ u64 place(u32 sender, u64 at) const {
    return from + lane_of(sender, rank) * lane_bytes + at;
  }

  // Waits for the vectors of the other ranks for which wanted(rank) holds, and empties their
  // places. The rest of part[] becomes `own`: an assignment to part[rank] after the loop would
  // index registers at run time and move them to local memory.
  template <typename Wanted>
  __device__ __forceinline__ void receive(const Arguments& args, u64 at, u32 stage,
                                          const Vector& own, Vector (&part)[WORLD],
                                          Wanted wanted) const {
#pragma unroll
    for (u32 r = 0; r < WORLD; ++r) part[r] = own;
    Patience patience;
    u32 missing;
    do {
#pragma unroll
      for (u32 r = 0; r < WORLD; ++r)
        if (r != rank && wanted(r)) part[r] = load_from_any_gpu(place(r, at));
      missing = WORLD;
#pragma unroll
      for (u32 r = 0; r < WORLD; ++r)
        if (r != rank && wanted(r) && incomplete(part[r])) missing = r;
    } while (missing != WORLD && !patience.lost(args, missing, stage));
    const Vector empty = {EMPTY, EMPTY, EMPTY, EMPTY};
#pragma unroll
    for (u32 r = 0; r < WORLD; ++r)
      if (r != rank && wanted(r)) store_own(place(r, at), empty);
  }
};

struct Everyone {
  __device__ __forceinline__ bool operator()(u32) const { return true; }
};

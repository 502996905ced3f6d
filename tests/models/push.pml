/* The mail of the push kernels (src/twinrun/kernels/cuda/mailbox.cuh), one vector a rank.
 *
 * Checked for WORLD ranks and CALLS calls, of which any rank may be one ahead of another:
 *   - no stale read: what a rank takes from a slot is what its sender sent in this very call;
 *   - no lost clear: a sender always finds the place empty, and at the end all places are empty;
 *   - no deadlock: every rank ends every call.
 *
 * A GPU's stores reach memory late and in any order: every store (to a peer, and the clearing of
 * one's own place) is a message that a process of its own carries out at some later time. Only two
 * things bring order: the stores of a call are done when the kernel of that call has ended (the
 * next one begins then), and a load of an address sees this rank's own earlier load of it.
 *
 * TWO_SHOT adds the second flight: after hearing from everyone a rank sends once more.
 * ONE_SLOT and NO_END are faults that a test plants to see them found.
 */
#ifndef WORLD
#define WORLD 2
#endif
#ifndef CALLS
#define CALLS 4
#endif
#ifdef ONE_SLOT
#define SLOT(call) 0
#else
#define SLOT(call) ((call) % 2)
#endif
#ifdef TWO_SHOT
#define SHOTS 2
#else
#define SHOTS 1
#endif

#define EMPTY 255
#define PLACES (2 * SHOTS * WORLD * WORLD)
#define PLACE(slot, shot, receiver, sender) \
  ((((slot) * SHOTS + (shot)) * WORLD + (receiver)) * WORLD + (sender))
/* What a sender sends: which call and which shot. */
#define MAIL(call, shot) ((call) * SHOTS + (shot))

byte place[PLACES];
/* Stores on their way: at most one to a peer and one clearing for each place. */
byte sending[PLACES];
bool clearing[PLACES];
byte unfinished[WORLD]; /* stores of a rank's kernel that have not been done */

inline send_to_all(me, call, shot) {
  atomic {
    peer = 0;
    do
    :: peer < WORLD ->
       if
       :: peer != me ->
          assert(sending[PLACE(SLOT(call), shot, peer, me)] == EMPTY);
          sending[PLACE(SLOT(call), shot, peer, me)] = MAIL(call, shot);
          unfinished[me]++
       :: else
       fi;
       peer++
    :: else -> break
    od
  }
}

inline hear_from_all(me, call, shot) {
  peer = 0;
  do
  :: peer < WORLD && peer == me -> peer++
  :: peer < WORLD && peer != me ->
     atomic {
       place[PLACE(SLOT(call), shot, me, peer)] != EMPTY ->
       /* No stale read. */
       assert(place[PLACE(SLOT(call), shot, me, peer)] == MAIL(call, shot));
       clearing[PLACE(SLOT(call), shot, me, peer)] = true;
       unfinished[me]++;
       peer++
     }
  :: peer == WORLD -> break
  od
}

proctype rank(byte me) {
  byte call = 0;
  byte peer;
  do
  :: call < CALLS ->
     send_to_all(me, call, 0);
     hear_from_all(me, call, 0);
#ifdef TWO_SHOT
     send_to_all(me, call, 1);
     hear_from_all(me, call, 1);
#endif
#ifndef NO_END
     /* The kernel ends: its stores are done. The next call begins. */
     unfinished[me] == 0;
#endif
     call++
  :: else -> break
  od
}

/* Memory: carries out any store that is on its way, at any time. */
proctype memory() {
  byte p;
end:
  do
  :: atomic {
       select(p : 0 .. PLACES - 1);
       if
       :: sending[p] != EMPTY ->
          /* No lost clear: whoever sends finds the place empty. */
          assert(place[p] == EMPTY);
          place[p] = sending[p];
          sending[p] = EMPTY;
          unfinished[p % WORLD]--
       :: clearing[p] ->
          place[p] = EMPTY;
          clearing[p] = false;
          unfinished[(p / WORLD) % WORLD]--
       :: else
       fi
     }
  od
}

init {
  atomic {
    byte p = 0;
    do
    :: p < PLACES -> place[p] = EMPTY; sending[p] = EMPTY; p++
    :: else -> break
    od;
    run memory();
    byte r = 0;
    do
    :: r < WORLD -> run rank(r); r++
    :: else -> break
    od
  }
  /* Every rank has ended every call, and every place is empty. */
  (_nr_pr == 2);
  byte q = 0;
  do
  :: q < PLACES -> assert(place[q] == EMPTY && sending[q] == EMPTY && !clearing[q]); q++
  :: else -> break
  od
}

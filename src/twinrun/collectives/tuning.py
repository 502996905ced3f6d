"""Which of Twinrun's kernels a request gets, by size. Pure: ``twinrun doctor`` asks it too."""

from __future__ import annotations

from twinrun.collectives.facts import GroupFacts, Offer, Request

# Conservative sizes for a GPU that no table was measured on: up to here latency is all that counts.
_ONE_SHOT_BYTES = 128 << 10


def pick(backend: str, facts: GroupFacts, request: Request) -> Offer | str:
    """The algorithm of ``backend`` (``symmetric`` or ``ipc``) for ``request``, or a refusal.

    Called only for what the backend's other conditions allow: one node, a supported world size and
    dtype, contiguous tensors.
    """
    small = request.nbytes <= _ONE_SHOT_BYTES
    note = f"no table was measured on {facts.gpu or 'this GPU'}: conservative sizes"
    if backend == "ipc":
        return Offer("one_stage" if small else "two_stage", note, request.order)
    return Offer("one_shot_push" if small else "two_shot_push", note, request.order)

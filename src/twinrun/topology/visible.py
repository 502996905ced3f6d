"""Which GPUs ``CUDA_VISIBLE_DEVICES`` leaves visible: indices, UUIDs and MIG instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twinrun.topology.gpus import Gpu


@dataclass(frozen=True, slots=True)
class Visible:
    """The GPUs that CUDA will show, in its order, and what of the variable CUDA will not take.

    CUDA stops at the first entry that it cannot resolve and hides the rest without a word, so
    ``problem`` says which one that is.
    """

    gpus: tuple[Gpu, ...]
    mig: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def count(self) -> int:
        """How many devices CUDA will count. With a MIG instance among them it shows one only."""
        return 1 if self.mig else len(self.gpus)


def visible(text: str | None, gpus: Sequence[Gpu]) -> Visible:
    """What ``CUDA_VISIBLE_DEVICES=text`` leaves of ``gpus``; None means that it is not set."""
    if text is None:
        return Visible(tuple(gpus))
    shown: list[Gpu] = []
    for entry in (part.strip() for part in text.split(",")):
        if entry.startswith("MIG-"):
            return _mig(entry, gpus)
        found = _find(entry, gpus)
        if isinstance(found, str):
            return Visible(tuple(shown), problem=found if text.strip() else None)
        if found in shown:
            return Visible((), problem=f"{entry!r} names GPU {found.index} twice: CUDA shows none")
        shown.append(found)
    return Visible(tuple(shown))


def _find(entry: str, gpus: Sequence[Gpu]) -> Gpu | str:
    if entry.isdigit():
        hits = [gpu for gpu in gpus if gpu.index == int(entry)]
    else:
        # CUDA takes any prefix of a UUID that fits one GPU.
        hits = [gpu for gpu in gpus if entry.startswith("GPU-") and gpu.uuid.startswith(entry)]
    if len(hits) == 1:
        return hits[0]
    told = "fits several GPUs" if hits else f"is none of this machine's {len(gpus)} GPUs"
    return f"{entry!r} {told}; CUDA hides it and all that follow"


def _mig(entry: str, gpus: Sequence[Gpu]) -> Visible:
    owners = [gpu for gpu in gpus if _holds(entry, gpu)]
    if not owners:
        return Visible((), problem=f"{entry!r} is no MIG instance of this machine")
    return Visible((owners[0],), mig=(entry,))


def _holds(entry: str, gpu: Gpu) -> bool:
    # Drivers before R470 name an instance MIG-GPU-<uuid>/<gpu instance>/<compute instance>.
    older = bool(gpu.uuid) and entry.startswith(f"MIG-{gpu.uuid}/")
    return older or any(uuid.startswith(entry) for uuid in gpu.mig_uuids)

"""Which channel takes a tensor from one process's GPU to another process, and why not a better one; pure."""

from __future__ import annotations

from dataclasses import dataclass

IPC, NCCL, HOST = "cuda ipc", "nccl", "host"
NAMES = {"ipc": IPC, "nccl": NCCL, "host": HOST}


@dataclass(frozen=True, slots=True)
class End:
    """What one process can do: the identity of its GPU, its NCCL version ("" for none)."""

    gpu: str
    nccl: str


def against_ipc(wanted: str, local: bool) -> str:
    """Why CUDA IPC is not even tried, "" where it is. ``local``: both can hand each other descriptors."""
    if wanted not in ("auto", "ipc"):
        return f"{wanted} was asked for"
    return "" if local else "the two processes are on different hosts or in different namespaces"


def against_nccl(sender: End, receiver: End, wanted: str) -> str:
    """Why NCCL is not even tried, "" where it is."""
    if wanted not in ("auto", "nccl"):
        return f"{wanted} was asked for"
    if not receiver.gpu:
        return "the receiver uses no GPU"
    if sender.gpu == receiver.gpu:
        return "both use one GPU"
    if not sender.nccl or not receiver.nccl:
        return f"the {'sender' if not sender.nccl else 'receiver'} has no shared NCCL library"
    if sender.nccl != receiver.nccl:
        return f"version {sender.nccl} here, {receiver.nccl} there"
    return ""


def described(channel: str, reasons: dict[str, str], host: str) -> str:
    """A channel for the log, with why the better ones were left out; ``host``: what bytes travel over."""
    why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)
    told = f"host memory over {host}" if channel == HOST else channel
    return f"{told} ({why})" if why else told

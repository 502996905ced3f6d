"""What can be learnt of this rank's device, and of what it shares with its peers, only by touching it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import torch
import torch.distributed as dist

from twinrun.collectives.exchange import Exchange
from twinrun.errors import UnavailableError
from twinrun.topology.memory import leave_token, sees_token
from twinrun.topology.node import split_unseen

# By ranks and this rank's device: the default group that was there, and what the test told.
_tested: dict[tuple[tuple[int, ...], str], tuple[object, str | None]] = {}
# A page that no allocator hands out by chance with the right content.
_PATTERN_ELEMENTS = 16 << 10


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """A device as torch describes it; ``kind`` is ``cpu``, ``cuda`` or ``hip``."""

    kind: str
    name: str = ""
    capability: tuple[int, int] = (0, 0)


def describe(device: torch.device) -> DeviceFacts:
    """What ``device`` is."""
    if device.type != "cuda":
        return DeviceFacts(device.type)
    kind = "hip" if torch.version.hip else "cuda"
    major, minor = torch.cuda.get_device_capability(device)
    return DeviceFacts(kind, torch.cuda.get_device_name(device), (major, minor))


def missing(device: torch.device) -> dict[str, str]:
    """Why this rank cannot run a backend at all, by backend. Opens nothing to a peer."""
    reasons = {name: module(name).probe(device) for name in _candidates(device)}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def module(backend: str):  # type: ignore[no-untyped-def]  # one of several modules of one shape
    """The module of a backend that has a workspace."""
    return import_module(f"twinrun.collectives.{backend}")


def _candidates(device: torch.device) -> tuple[str, ...]:
    if device.type == "cpu":
        return ("shared_memory",)
    return ("aiter",) if torch.version.hip else ("symmetric", "ipc")


def part_by_memory(exchange: Exchange, nodes: Sequence[str]) -> tuple[str, ...]:
    """The nodes, with ranks parted that do not see each other's shared memory.

    Containers of one machine may have the same boot id and host name and share nothing.
    """
    mine = secrets.token_hex(16)
    left = leave_token(mine)
    try:
        tokens = exchange.gather_json(mine if left is not None else None)
        here = [
            rank for rank, token in enumerate(tokens)
            if rank == exchange.rank or (token is not None and sees_token(token))
        ]  # fmt: skip
        sees = exchange.gather_json(here)
    finally:
        if left is not None:
            left.unlink(missing_ok=True)
    # Where nobody could leave a token nothing was tested, and the names stand as they are.
    return tuple(nodes) if all(token is None for token in tokens) else split_unseen(nodes, sees)


def peer_access(exchange: Exchange, device: torch.device) -> str | None:
    """What went wrong when every rank wrote into and read from every other's memory, or None.

    Some machines report peer access and corrupt what is copied (an IOMMU in the way), so the copy is
    checked. All ranks call it at the same point; each holds 64 KiB a rank for a moment. Tested once
    for these ranks on their devices; tested again where one of them has come with another device.
    """
    key = (exchange.ranks, str(device))
    world, told = _tested.get(key, (None, None))
    known = world is not None and world is dist.group.WORLD
    if not all(exchange.gather_json(known)):
        told = _copy_and_check(exchange, device)
        _tested[key] = (dist.group.WORLD, told)
    return told


def _copy_and_check(exchange: Exchange, device: torch.device) -> str | None:
    size, rank = exchange.size, exchange.rank
    board = torch.full((size, _PATTERN_ELEMENTS), -1, dtype=torch.int32, device=device)
    board[rank] = _pattern(rank, rank, device)
    torch.cuda.synchronize(device)
    trouble = None
    try:
        peers = _open_boards(exchange, board, device)
        trouble = _write_and_read(peers, rank, device)
    except (RuntimeError, OSError, UnavailableError) as error:
        # UnavailableError: a peer came with its own trouble instead of its handle.
        trouble = str(error).splitlines()[0]
    told = exchange.first_trouble(trouble)
    if told is None:
        told = exchange.first_trouble(_check_board(board, rank, device))
    return told


def _open_boards(
    exchange: Exchange, board: torch.Tensor, device: torch.device
) -> dict[int, torch.Tensor]:
    """Every other rank's board, mapped here through its CUDA IPC handle."""
    handles = exchange.gather_json([_plain(part) for part in _share(board)])
    opened = {}
    for rank, handle in enumerate(handles):
        if rank != exchange.rank:
            parts = [_bytes_again(part) for part in handle]
            storage = torch.UntypedStorage._new_shared_cuda(device.index, *parts[1:])
            flat = torch.empty(0, dtype=board.dtype, device=device).set_(storage)
            opened[rank] = flat[board.storage_offset() :][: board.numel()].view(board.shape)
    return opened


def _write_and_read(peers: dict[int, torch.Tensor], rank: int, device: torch.device) -> str | None:
    for peer, board in peers.items():
        if not torch.equal(board[peer].clone(), _pattern(peer, peer, device)):
            return f"what it read from rank {peer} of the group was not what lies there"
        board[rank].copy_(_pattern(rank, peer, device))
    torch.cuda.synchronize(device)
    return None


def _check_board(board: torch.Tensor, rank: int, device: torch.device) -> str | None:
    for writer in range(board.shape[0]):
        if not torch.equal(board[writer], _pattern(writer, rank, device)):
            return f"what rank {writer} of the group wrote did not arrive as it was"
    return None


def _pattern(writer: int, owner: int, device: torch.device) -> torch.Tensor:
    numbers = torch.arange(_PATTERN_ELEMENTS, dtype=torch.int32, device=device)
    return numbers * 2654435 + writer * 7919 + owner * 104729


def _share(board: torch.Tensor) -> tuple[object, ...]:
    shared: tuple[object, ...] = board.untyped_storage()._share_cuda_()  # type: ignore[no-untyped-call]
    return shared


def _plain(part: object) -> object:
    return {"hex": part.hex()} if isinstance(part, bytes) else part


def _bytes_again(part: object) -> object:
    return bytes.fromhex(part["hex"]) if isinstance(part, dict) else part

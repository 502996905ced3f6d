"""Which all-reduce is used, and why. Pure, table-driven, without torch.

The guard: the symmetric-memory and the IPC all-reduce reach one node only. In a job of several
nodes the launch rule ``launch.in_node_only`` switches the symmetric one off for every process
(``TWINRUN_SYMMETRIC_ALL_REDUCE=0``), and a group falls back to IPC where it lies inside one node
and to the library (NCCL, gloo) where it does not. With ``--keep-in-node-all-reduce`` only groups
that span nodes are kept from it. A program that plain torchrun or srun started gets the same
decision from the facts of its first ``AllReduce``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twinrun.collectives import tuning
from twinrun.collectives.facts import GroupFacts, Offer, Plan, Request
from twinrun.errors import UnavailableError

INTEGERS = ("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64")
FLOATS = ("float64", "float32", "float16", "bfloat16", "complex64", "complex128")
NARROW = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
SUMMABLE = (*FLOATS, *NARROW, *INTEGERS)
# What NCCL and gloo both add themselves; torch hands complex numbers over as pairs of reals.
LIBRARY_DTYPES = (*FLOATS, "uint8", "int8", "int32", "int64")
KERNEL_DTYPES = ("bfloat16", "float16", "float32")
KERNEL_SIZES = (2, 3, 4, 6, 8)

Check = Callable[[GroupFacts, Request], "str | None"]


def _one_node(facts: GroupFacts, request: Request) -> str | None:
    if facts.in_one_node:
        return None
    return f"the group spans {facts.node_count} nodes (it reaches one node)"


def _on_cuda(facts: GroupFacts, request: Request) -> str | None:
    return None if facts.device == "cuda" else f"it needs CUDA GPUs, the group is on {facts.device}"


def _on_hip(facts: GroupFacts, request: Request) -> str | None:
    return None if facts.device == "hip" else f"it needs AMD GPUs, the group is on {facts.device}"


def _on_cpu(facts: GroupFacts, request: Request) -> str | None:
    return None if facts.device == "cpu" else f"it sums CPU tensors, the group is on {facts.device}"


def _peers(facts: GroupFacts, request: Request) -> str | None:
    return "a tested copy between two of its GPUs failed" if facts.peer_access is False else None


def _world(facts: GroupFacts, request: Request) -> str | None:
    if facts.size in KERNEL_SIZES:
        return None
    return f"its kernels are for {_words(KERNEL_SIZES)} ranks, the group has {facts.size}"


def _dtype(facts: GroupFacts, request: Request) -> str | None:
    if request.dtype in KERNEL_DTYPES:
        return None
    return f"its kernels sum {_words(KERNEL_DTYPES)}, not {request.dtype}"


def _summable(facts: GroupFacts, request: Request) -> str | None:
    if request.dtype in SUMMABLE:
        return None
    return f"a sum of {request.dtype} is not defined here (convert it first)"


def _unordered(facts: GroupFacts, request: Request) -> str | None:
    if _wants_order(facts, request):
        return f"it does not sum in the order that was asked for ({request.order})"
    return None


def _uncaptured(facts: GroupFacts, request: Request) -> str | None:
    return "it cannot be captured in a CUDA graph" if request.capturing else None


def _is_library(name: str) -> Check:
    def check(facts: GroupFacts, request: Request) -> str | None:
        if facts.library == name:
            return None
        return f"the group's backend for {facts.device} is {facts.library or 'none'}"

    return check


def _kernel(name: str) -> Callable[[GroupFacts, Request], Offer | str]:
    return lambda facts, request: tuning.pick(name, facts, request)


def _shared_memory(facts: GroupFacts, request: Request) -> Offer | str:
    order = "tree" if request.order == "tree" else "ranks"
    return Offer("slices", "CPU ranks of one host, through memory that they share", order)


def _aiter(facts: GroupFacts, request: Request) -> Offer | str:
    return Offer("aiter", "AMD GPUs of one node", "library")


def _library(facts: GroupFacts, request: Request) -> Offer | str:
    if request.dtype not in LIBRARY_DTYPES:
        order = "tree" if request.order == "tree" else "ranks"
        return Offer(
            "gather_sum", f"the library does not add {request.dtype}: all-gather, then a sum", order
        )
    if request.dtype in INTEGERS:
        return Offer("library", "integer sums have the same bits in any order", request.order)
    if _wants_order(facts, request):
        reason = f"all-gather, then a sum in the order asked for ({request.order})"
        return Offer("gather_sum", reason, request.order)
    return Offer("library", "the group's own library is what is left", "library")


def _wants_order(facts: GroupFacts, request: Request) -> bool:
    asked = request.order_asked or facts.deterministic
    return asked and request.order != "any" and request.dtype not in INTEGERS


@dataclass(frozen=True, slots=True)
class Row:
    """A backend in line: what it must not meet, then what it offers."""

    name: str
    checks: tuple[Check, ...]
    offer: Callable[[GroupFacts, Request], Offer | str]

    def consider(self, facts: GroupFacts, request: Request) -> Offer | str:
        """Its offer, or its first reason to decline."""
        refused = facts.refusal(self.name)
        if refused is not None:
            return refused
        for check in self.checks:
            reason = check(facts, request)
            if reason is not None:
                return reason
        return self.offer(facts, request)


_KERNEL_CHECKS = (_on_cuda, _one_node, _peers, _world, _dtype)

# In the order of preference. A new backend is a new row.
LINE = (
    Row("symmetric", _KERNEL_CHECKS, _kernel("symmetric")),
    Row("ipc", _KERNEL_CHECKS, _kernel("ipc")),
    Row("aiter", (_on_hip, _one_node, _dtype, _unordered), _aiter),
    Row("shared_memory", (_on_cpu, _one_node, _summable), _shared_memory),
    Row("nccl", (_is_library("nccl"), _summable), _library),
    Row("gloo", (_is_library("gloo"), _uncaptured, _summable), _library),
)
BACKENDS = tuple(row.name for row in LINE)
# Those that need a workspace made by all ranks together; the others are the process group's own.
WORKSPACES = ("symmetric", "ipc", "aiter", "shared_memory")


def plan(facts: GroupFacts, request: Request) -> Plan:
    """The backend and algorithm for ``request``, its order and reason, and who declined and why.

    ``UnavailableError`` where no backend is left; it lists every reason.
    """
    if facts.size == 1 or request.nbytes == 0:
        what = "the group has one rank" if facts.size == 1 else "there are no elements"
        return Plan("none", "copy", request.order, f"{what}: nothing is sent")
    declined: list[tuple[str, str]] = []
    for row in _in_line(facts, declined):
        offer = row.consider(facts, request)
        if isinstance(offer, Offer):
            return _planned(row.name, offer, declined, request.contiguous)
        declined.append((row.name, offer))
    raise _nothing_left(facts, declined)


def makeable(facts: GroupFacts) -> tuple[str, ...]:
    """The backends with a workspace that would take some request of this group, best first."""
    request = Request(nbytes=4096, dtype="float32", order="ranks")
    rows = [row for row in _in_line(facts, []) if row.name in WORKSPACES]
    return tuple(row.name for row in rows if isinstance(row.consider(facts, request), Offer))


def _in_line(facts: GroupFacts, declined: list[tuple[str, str]]) -> tuple[Row, ...]:
    if facts.asked == "auto":
        return _with_other(facts)
    first = BACKENDS.index(facts.asked)
    declined += [(name, f"{facts.asked} was asked for by name") for name in BACKENDS[:first]]
    return _with_other(facts)[first:]


def _with_other(facts: GroupFacts) -> tuple[Row, ...]:
    if facts.library in (*BACKENDS, ""):
        return LINE
    return (*LINE, Row(facts.library, (_summable,), _library))


def _planned(name: str, offer: Offer, declined: list[tuple[str, str]], contiguous: bool) -> Plan:
    reason = offer.reason if contiguous else f"{offer.reason}; through a contiguous copy"
    return Plan(
        name, offer.algorithm, offer.order, reason, tuple(declined), offer.blocks, offer.threads
    )


def _nothing_left(facts: GroupFacts, declined: list[tuple[str, str]]) -> UnavailableError:
    told = ("\n" + " " * 12).join(f"{name}: {reason}" for name, reason in declined)
    return UnavailableError(
        f"no all-reduce is left for a group of {facts.size} ranks on {facts.device}.",
        seen=told,
        expected="one backend that can sum these tensors",
        do="make the process group with a backend for this device (nccl for cuda, gloo for cpu)",
    )


def _words(items: tuple[object, ...]) -> str:
    *most, last = [str(item) for item in items]
    return f"{', '.join(most)} or {last}"

"""What ``twinrun doctor`` prints, from plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twinrun.collectives.facts import GroupFacts, Request
from twinrun.collectives.ladder import SIZES, Rung, ladder
from twinrun.collectives.plan import BACKENDS
from twinrun.env import variables as V
from twinrun.launch.decision import Decision
from twinrun.launch.guard import RULE as GUARD
from twinrun.topology.machine import Machine

_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float64": "fp64"}
_OTHER_DEVICE = ", the group is on "
_LABEL = 15


@dataclass(frozen=True, slots=True)
class Checkup:
    """One group, the request that it is asked about, and what was decided on the way."""

    facts: GroupFacts
    request: Request
    sized: bool
    environ: Mapping[str, str]
    decisions: Sequence[Decision]


def found_lines(machine: Machine) -> list[str]:
    """What was found on this machine, each with how it was learnt."""
    gpus, boot = machine.gpus, machine.node.boot_id[:8]
    lines = [
        "found",
        _row("node", f"{machine.node.label}" + (f"   boot {boot}" if boot else "")),
        _row("cpus", str(machine.cpus)),
        *_gpu_lines(machine),
        _row("memory", _shared(machine)),
    ]
    if gpus.driver:
        lines.append(_row("driver", f"{gpus.driver}, CUDA {gpus.cuda or '?'} ({gpus.how})"))
    if machine.container.value:
        lines.append(_row("container", str(machine.container)))
    if machine.expandable_segments.value:
        lines.append(_row("allocator", f"expandable segments ({machine.expandable_segments.how})"))
    if machine.job.launcher != "none":
        lines.append(_row("launcher", _job(machine)))
    return lines


def checkup_lines(checkup: Checkup) -> list[str]:
    """What the group would use at each size and why, which rules fired, and what to change."""
    sizes = (checkup.request.nbytes,) if checkup.sized else SIZES
    rungs = ladder(checkup.facts, checkup.request, sizes)
    lines = [_title(checkup)]
    lines += [_off(name, reason) for name, reason in _declined(rungs)]
    lines += [_chosen(rung, checkup) for rung in rungs]
    lines += _decided(checkup)
    return lines + _advice(checkup.facts, dict(_declined(rungs)))


def size_text(nbytes: int) -> str:
    """``98304`` as ``96 KiB``."""
    for unit, name in _UNITS:
        if nbytes >= unit and nbytes % unit == 0:
            return f"{nbytes // unit} {name}"
    return f"{nbytes} bytes"


def _title(checkup: Checkup) -> str:
    facts = checkup.facts
    nodes = "1 node" if facts.node_count == 1 else f"{facts.node_count} nodes"
    ranks = "1 rank" if facts.size == 1 else f"{facts.size} ranks"
    device = facts.gpu or facts.device
    return f"group of {ranks} on {nodes}   {device}, {_dtype(checkup)}"


def _off(name: str, reason: str) -> str:
    return _row(name, f"off: {reason}")


def _declined(rungs: Sequence[Rung]) -> list[tuple[str, str]]:
    """The backends of this kind of device that no size gets, each with its first reason, in line."""
    used = {rung.plan.backend for rung in rungs}
    reasons = {name: why for rung in reversed(rungs) for name, why in rung.plan.declined}
    told = [(name, reasons[name]) for name in BACKENDS if name in reasons and name not in used]
    return [(name, reason) for name, reason in told if _OTHER_DEVICE not in reason]


def _chosen(rung: Rung, checkup: Checkup) -> str:
    plan = rung.plan
    if checkup.sized:
        span = f"{size_text(rung.least)} {_dtype(checkup)}"
    elif rung.least == rung.most:
        span = size_text(rung.least)
    else:
        span = f"{size_text(rung.least)} to {size_text(rung.most)}"
    return _row(
        plan.backend, f"CHOSEN for {span}: {plan.algorithm}, order {plan.order} ({plan.reason})"
    )


def _decided(checkup: Checkup) -> list[str]:
    lines = []
    switch = V.SYMMETRIC_ALL_REDUCE
    if not switch.get(checkup.environ):
        lines.append(_head("decided by", f"{switch.name} = 0   {switch.source(checkup.environ)}"))
    told = [decision for decision in checkup.decisions if decision.level != "debug"]
    return lines + [_head("rule", f"{decision}") for decision in told if decision.rule != GUARD]


def _advice(facts: GroupFacts, declined: Mapping[str, str]) -> list[str]:
    """What to change, for what is in the user's hands."""
    lines = []
    if GUARD in declined.get("symmetric", ""):
        lines.append("--keep-in-node-all-reduce keeps it for groups that lie inside a node")
    for name, fix in _FIXES:
        if any(name in reason for reason in declined.values()):
            lines.append(fix)
    if facts.library == "nccl" and facts.deterministic is False and not facts.in_one_node:
        lines.append("--deterministic sums in the stated order where only nccl is left (slower)")
    return [_head("to change", line) for line in lines]


_FIXES = (
    ("cuda-core", "pip install 'twinrun[cuda13]' (or cuda12, as your torch) for the kernels"),
    ("NVRTC", "pip install 'twinrun[cuda13]' (or cuda12, as your torch) for the compiler"),
    ("/dev/shm", "give the container more shared memory (--shm-size)"),
    ("multicast", "TORCH_SYMM_MEM_DISABLE_MULTICAST=1, which twinrun launch sets"),
    ("environment", "unset the variable that switches it off"),
)


def _gpu_lines(machine: Machine) -> list[str]:
    gpus = machine.gpus
    if not gpus.gpus:
        return [_row("gpus", "none"), *(_row("", why) for why in gpus.missing)]
    shown = machine.visible
    lines = [_row("gpus", f"{len(gpus.gpus)} x {gpus.name} ({gpus.how})")]
    if shown.count != len(gpus.gpus):
        lines.append(_row("visible", f"{shown.count} (CUDA_VISIBLE_DEVICES)"))
    if shown.problem:
        lines.append(_row("", f"CUDA_VISIBLE_DEVICES: {shown.problem}"))
    if gpus.links:
        lines.append(_row("links", _links(machine)))
    cliques = {gpu.clique for gpu in gpus.gpus if gpu.clique}
    if cliques:
        lines.append(_row("clique", f"NVLink reaches other nodes: {', '.join(sorted(cliques))}"))
    return lines


def _links(machine: Machine) -> str:
    kinds = {f"{link.kind}{link.count or ''}" for link in machine.gpus.links}
    if len(kinds) == 1:
        return f"{kinds.pop()} between every two"
    return ", ".join(str(link) for link in machine.gpus.links)


def _shared(machine: Machine) -> str:
    free = machine.shared_bytes
    if free.value is None:
        return f"none to share: {free.how}"
    return f"{free.value / (1 << 30):.1f} GiB to share ({free.how})"


def _job(machine: Machine) -> str:
    job = machine.job
    nodes = "?" if job.nnodes is None else job.nnodes
    return f"{job.launcher}: rank {job.rank} of {job.size}, {nodes} nodes"


def _dtype(checkup: Checkup) -> str:
    return _SHORT.get(checkup.request.dtype, checkup.request.dtype)


def _row(label: str, text: str) -> str:
    return f"  {label:<{_LABEL - 2}}  {text}".rstrip()


def _head(label: str, text: str) -> str:
    return f"{label:<{_LABEL}}  {text}"

"""Which outermost module of the target stands for which of the baseline, whatever their labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from twinrun.comparison.view import View
from twinrun.recorder.record import Record, RootInfo


def renaming(baseline: View, target: View) -> Callable[[Record], str]:
    """Names of target records with the label of the baseline's root in place of their own.

    One root on each side pairs whatever it is called; several pair by class and then by ordinal,
    and those left over by label.
    """
    labels = _pairs(_roots(baseline), _roots(target))
    roots = [process.roots for process in target.processes]

    def rename(record: Record) -> str:
        own = roots[record.process]
        if not record.module_class or not 0 <= record.root < len(own):
            return record.name
        label = own[record.root].label
        return _relabel(record.name, label, labels.get(label, label))

    return rename if any(old != new for old, new in labels.items()) else lambda r: r.name


def _roots(view: View) -> list[RootInfo]:
    """Distinct roots in the order in which processes met them."""
    found = {root.label: root for process in view.processes for root in process.roots}
    return list(found.values())


def _pairs(baseline: list[RootInfo], target: list[RootInfo]) -> dict[str, str]:
    """Target label -> baseline label."""
    if len(baseline) == len(target) == 1:
        return {target[0].label: baseline[0].label}
    waiting: dict[str, list[str]] = defaultdict(list)
    for root in baseline:
        waiting[root.module_class].append(root.label)
    pairs = {}
    for root in target:
        if waiting[root.module_class]:
            pairs[root.label] = waiting[root.module_class].pop(0)
    left = {label for labels in waiting.values() for label in labels}
    for root in target:
        if root.label not in pairs and root.label in left:
            pairs[root.label] = root.label
    # A label that the baseline gave to another root must not be mistaken for it.
    taken = set(pairs.values())
    for root in target:
        if root.label not in pairs:
            pairs[root.label] = (
                root.label if root.label not in taken else f"{root.module_class}(target)"
            )
    return pairs


def _relabel(name: str, old: str, new: str) -> str:
    if old == new:
        return name
    module, colon, port = name.partition(":")
    if old and module != old and not module.startswith(f"{old}."):
        return name
    path = module[len(old) :].removeprefix(".")
    return f"{new}.{path}{colon}{port}" if new and path else f"{new or path}{colon}{port}"

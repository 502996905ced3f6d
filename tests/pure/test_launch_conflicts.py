"""Pairs of options that cannot work together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from twinrun.errors import LaunchError
from twinrun.launch.args import LaunchArgs, Platform
from twinrun.launch.conflicts import CONFLICTS, met, refuse_conflicts
from twinrun.launch.rules import resolve
from twinrun.launch.wants import Observers, Wants

WANTS = Wants()
MEET = {
    "--all-reduce symmetric": Wants(all_reduce="symmetric", nodes=2),
    "--all-reduce ipc": Wants(all_reduce="ipc", nodes=2, tensor_groups_span_nodes=True),
    "--all-reduce shared_memory": Wants(
        all_reduce="shared_memory", nodes=2, tensor_groups_span_nodes=True
    ),
    "--deterministic": Wants(deterministic=True, order="any", all_reduce="aiter"),
    "--cuda-graph": Wants(cuda_graph=True, backend="gloo", observers=Observers(mode="values")),
    "--all-reduce nccl": Wants(all_reduce="nccl", backend="gloo"),
    "a live graft (--graft-address)": Wants(observers=Observers(live_graft="a:1", offline_graft="d")),
    "--b2t": Wants(observers=Observers(b2t="layer  < 4", t2b=" layer < 4 ")),
}  # fmt: skip


@pytest.mark.parametrize("row", CONFLICTS, ids=str)
def test_every_row_is_met_by_its_pair_and_says_the_way_out(row) -> None:  # type: ignore[no-untyped-def]
    """Each conflict has a pair that meets it, both names, a reason and what to do."""
    assert row in met(MEET[row.first])
    assert row.because and row.do and row.first in str(row) and row.second in str(row)


def test_nothing_conflicts_by_default() -> None:
    """Defaults meet no conflict."""
    assert met(WANTS) == ()


@pytest.mark.parametrize(
    ("wants", "refused"),
    [
        (Wants(all_reduce="symmetric", nodes=1), False),
        (Wants(all_reduce="symmetric", nodes=2, keep_in_node=True), False),
        (
            Wants(
                all_reduce="symmetric", nodes=2, keep_in_node=True, tensor_groups_span_nodes=True
            ),
            True,
        ),
        (Wants(all_reduce="ipc", nodes=2), False),
    ],
)
def test_in_node_backends_by_name(wants: Wants, refused: bool) -> None:
    """By name, symmetric is refused unless groups stay inside nodes and are kept there."""
    assert bool(met(wants)) is refused


def test_filters_overlap_by_their_very_text() -> None:
    """Same words with other spaces are the same filter; two empty filters are none."""
    assert met(replace(WANTS, observers=Observers(b2t="", t2b=""))) == ()
    assert met(replace(WANTS, observers=Observers(b2t="a", t2b="b"))) == ()


def test_a_launch_refuses_by_flag_and_by_variable() -> None:
    """The same pair is refused however it was said."""
    args = LaunchArgs(command=("x.py",), deterministic=True)
    with pytest.raises(LaunchError, match="--deterministic cannot go with --order any"):
        resolve(args, {"TWINRUN_ALL_REDUCE_ORDER": "any"}, Platform(0))


def test_tensor_groups_inside_a_node_may_keep_symmetric() -> None:
    """tp that divides the ranks of a node never spans nodes."""
    base = LaunchArgs(
        command=("x.py",), nnodes=2, node_rank=0, dist_init_addr="a:1", nproc_per_node=4,
        all_reduce="symmetric", keep_in_node_all_reduce=True,
    )  # fmt: skip
    resolve(replace(base, tp=4), {}, Platform(4))
    with pytest.raises(LaunchError, match="spans nodes"):
        resolve(replace(base, tp=8), {}, Platform(4))


def test_other_commands_refuse_alike() -> None:
    """A command that is no launch gets one error with both names and the way out."""
    with pytest.raises(LaunchError, match="--b2t cannot go with --t2b") as caught:
        refuse_conflicts(MEET["--b2t"])
    assert "narrow one of the filters" in str(caught.value)

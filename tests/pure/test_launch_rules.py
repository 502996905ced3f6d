"""The rules of a launch: what each adjusts or refuses, and in which order."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from twinrun.env import variables as V
from twinrun.errors import LaunchError, VariableError
from twinrun.launch.address import parse_address, render_address
from twinrun.launch.args import LaunchArgs, Platform
from twinrun.launch.guard import RULE as GUARD
from twinrun.launch.guard import in_node_only
from twinrun.launch.rules import RULES, resolve

CPU = Platform(0, how="tested")
TWO = {"nnodes": 2, "node_rank": 0, "dist_init_addr": "a:29500"}
SYMMETRIC = "TWINRUN_SYMMETRIC_ALL_REDUCE"


def _args(**more: Any) -> LaunchArgs:
    return LaunchArgs(**{"command": ("train.py",), **more})


def _refused(environ: dict[str, str] | None = None, **more: Any) -> str:
    with pytest.raises(LaunchError) as caught:
        resolve(_args(**more), environ or {}, CPU)
    return str(caught.value)


def test_the_order_of_the_rules_is_pinned() -> None:
    """Arguments, platform, sizes, collectives (the guard), observers, CUDA graphs last."""
    assert [name for name, _ in RULES] == [
        "scheduler", "arguments", "platform", "sizes", "collectives", "observers", "graphs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "nodes", "value", "level"),
    [
        (None, 1, True, None),
        ("1", 1, True, None),
        ("0", 1, False, None),
        (None, 2, False, "debug"),
        ("1", 2, False, "warning"),
        ("0", 2, False, "debug"),
    ],
)
def test_the_guard(asked: str | None, nodes: int, value: bool, level: str | None) -> None:
    """Several nodes force the variable off; only a user who had set it on is warned."""
    environ = {} if asked is None else {SYMMETRIC: asked}
    more = TWO if nodes == 2 else {}
    resolved = resolve(_args(**more), environ, CPU)
    assert V.SYMMETRIC_ALL_REDUCE.get(resolved.environment) is value
    assert [each.level for each in resolved.of(GUARD)] == ([] if level is None else [level])
    assert V.SYMMETRIC_ALL_REDUCE.is_set(resolved.environment) is (asked is not None)
    if nodes == 2:
        assert resolved.environment[SYMMETRIC] == "0"


def test_the_warning_names_variable_nodes_and_reason() -> None:
    """The warning can be acted on without looking anything up."""
    decision = resolve(_args(**TWO), {SYMMETRIC: "yes"}, CPU).of(GUARD)[0]
    assert all(word in decision.text for word in (SYMMETRIC, "2 nodes", "one node only"))


def test_keep_limits_the_force_to_groups_that_span_nodes() -> None:
    """--keep-in-node-all-reduce leaves the variable on; the plan declines it where a group spans."""
    resolved = resolve(_args(**TWO, keep_in_node_all_reduce=True), {SYMMETRIC: "1"}, CPU)
    assert V.SYMMETRIC_ALL_REDUCE.get(resolved.environment) is True
    assert [each.level for each in resolved.of(GUARD)] == ["debug"]
    assert V.KEEP_IN_NODE_ALL_REDUCE.source(resolved.environment).kind == "flag"


def test_a_nested_launch_decides_the_same_and_warns_once() -> None:
    """Inside a launch that warned, a second one finds the variable off by rule and stays quiet."""
    outer = resolve(_args(**TWO), {SYMMETRIC: "1"}, CPU)
    inner = resolve(_args(**TWO), outer.environment, CPU)
    assert [each.level for each in inner.of(GUARD)] == ["debug"]
    assert V.SYMMETRIC_ALL_REDUCE.source(inner.environment).asked == "1"


def test_children_see_zero_and_its_origin() -> None:
    """A child process reads 0, and that the user had not set it."""
    environ = dict(resolve(_args(**TWO), {}, CPU).environment)
    code = (
        "import os; from twinrun.env import variables as V; v = V.SYMMETRIC_ALL_REDUCE;"
        "print(os.environ[v.name], v.get(), v.is_set(), v.source().detail)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["0", "False", "False", GUARD]


def test_the_graph_rule_sees_what_the_guard_left() -> None:
    """With IPC off, the guard leaves no in-node backend, so graph inputs are not read in place."""
    more = {**TWO, "cuda_graph": True}
    off = resolve(_args(**more), {"TWINRUN_IPC_ALL_REDUCE": "0"}, CPU).environment
    on = resolve(_args(**more), {}, CPU).environment
    one = resolve(_args(cuda_graph=True), {"TWINRUN_IPC_ALL_REDUCE": "0"}, CPU).environment
    assert [V.ALL_REDUCE_GRAPH_INPUTS.get(each) for each in (off, on, one)] == [False, True, True]


def test_multicast_is_forbidden_where_symmetric_memory_may_be_used() -> None:
    """torch is told to make no multicast object; a user's 0 is refused rather than overruled."""
    name = "TORCH_SYMM_MEM_DISABLE_MULTICAST"
    assert resolve(_args(), {}, CPU).environment[name] == "1"
    assert name not in resolve(_args(**TWO), {}, CPU).environment
    assert name in _refused({name: "0"})


def test_all_problems_come_in_one_error() -> None:
    """Numbers, address, node rank, sizes and conflicts are reported together."""
    text = _refused(
        nnodes=2, node_rank=5, nproc_per_node=3, dist_init_addr="nohost", tp=4, all_reduce="fast",
        deterministic=True, order="any", command=(),
    )  # fmt: skip
    for word in (
        "'nohost' is no HOST:PORT", "--node-rank is 5", "tp 4 = 4 does not divide the 6 ranks",
        "--all-reduce is 'fast'", "--deterministic cannot go with --order any", "no command",
    ):  # fmt: skip
        assert word in text


def test_unknown_variables_stop_a_launch() -> None:
    """A misspelt TWINRUN_ variable is refused before anything else."""
    with pytest.raises(VariableError, match="did you mean"):
        resolve(_args(), {"TWINRUN_SYMETRIC_ALL_REDUCE": "1"}, CPU)


def test_a_foreign_variable_that_does_not_parse_is_a_problem() -> None:
    """Slurm's variables are judged where a launch needs them."""
    assert "SLURM_NODEID='x'" in _refused(
        {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NODEID": "x"}
    )


@pytest.mark.parametrize(
    ("more", "dp"),
    [
        ({"nproc_per_node": 4, "tp": 2}, 2),
        ({"nproc_per_node": 4, "tp": 2, "pp": 2}, 1),
        ({"nproc_per_node": 4}, None),
        ({"nproc_per_node": 8, "tp": 2, "cp": 2, "ep": 4}, 2),
    ],
)
def test_data_parallel_is_what_remains(more: dict[str, int], dp: int | None) -> None:
    """tp * cp * pp * dp is the number of ranks; dp is filled in where it was left out."""
    assert resolve(_args(**more), {}, CPU).args.dp == dp


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"nproc_per_node": 4, "tp": 2, "dp": 4}, "tp 2 * dp 4 = 8 is not the 4 ranks"),
        ({"nproc_per_node": 4, "tp": 3}, "does not divide the 4 ranks"),
        ({"nproc_per_node": 4, "pp": 2, "ep": 4}, "ep 4 does not divide the 2 ranks"),
        ({"tp": 0}, "--tp is 0"),
        ({"nproc_per_node": -1}, "--nproc-per-node is -1"),
        ({"nnodes": 2}, "no address to meet at"),
        ({"nnodes": 2, "dist_init_addr": "a:1"}, "not which one this is"),
        ({"node_rank": 1}, "--node-rank is 1 of 1 nodes"),
        ({"dist_init_addr": "a:70000"}, "port 70000"),
        ({"rendezvous_timeout_s": 0}, "--rendezvous-timeout is 0"),
        ({"backend": "ncll"}, "--backend is 'ncll'"),
        ({"backend": "nccl"}, "no GPU is visible"),
        ({"command": ("bin/twinrun", "run", "--out", "d")}, "put it around the launch"),
    ],
)
def test_wrong_sizes_and_arguments(more: dict[str, Any], word: str) -> None:
    """Every refusal names what was seen."""
    assert word in _refused(**more)


def test_one_rank_a_gpu_where_nothing_was_said() -> None:
    """--nproc-per-node left out is the number of visible GPUs, or one without any."""
    four = resolve(_args(), {}, Platform(4, "nvidia", "driver"))
    assert four.args.nproc_per_node == 4 and "one rank a GPU" in four.decisions[0].text
    assert resolve(_args(), {}, CPU).args.nproc_per_node == 1


SLURM = {
    "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NODEID": "1", "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "gpu[03-04]", "SLURM_JOB_ID": "1077",
}  # fmt: skip


def test_slurm_gives_the_defaults() -> None:
    """Nodes, node rank and address come from the step; what was said outweighs them."""
    args = resolve(_args(), SLURM, CPU).args
    assert (args.nnodes, args.node_rank, args.dist_init_addr) == (2, 1, "gpu03:29577")
    assert resolve(_args(dist_init_addr="x:5"), SLURM, CPU).args.dist_init_addr == "x:5"


def test_duplicate_node_ranks_are_refused() -> None:
    """One --node-rank for all nodes of a step would make them duplicates."""
    assert "node ranks are duplicate" in _refused(SLURM, node_rank=0)


def test_one_launcher_a_node() -> None:
    """Several tasks a node would start the ranks several times."""
    assert "start one twinrun launch a node" in _refused({**SLURM, "SLURM_STEP_NUM_TASKS": "8"})


def test_open_mpi_gives_nodes_but_no_address() -> None:
    """Open MPI does not list hosts, so that the address must be given."""
    mpi = {
        "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_RANK": "1",
    }  # fmt: skip
    assert "no address to meet at" in _refused(mpi)
    args = resolve(_args(dist_init_addr="a:1"), mpi, CPU).args
    assert (args.nnodes, args.node_rank) == (2, 1)


def test_resolve_is_pure() -> None:
    """The caller's environment is left as it was, and the same input gives the same output."""
    environ = {SYMMETRIC: "1"}
    first, second = (resolve(_args(**TWO), environ, CPU) for _ in range(2))
    assert environ == {SYMMETRIC: "1"} and first == second


@pytest.mark.parametrize("keep", [False, True])
def test_the_guard_alone_matches_the_rule(keep: bool) -> None:
    """What a program without ``twinrun launch`` decides is what the launch would have."""
    forced, decision = in_node_only(2, keep, {})
    resolved = resolve(_args(**TWO, keep_in_node_all_reduce=keep), {}, CPU)
    assert resolved.of(GUARD) == (decision,)
    assert forced is not V.SYMMETRIC_ALL_REDUCE.get(resolved.environment)


@pytest.mark.parametrize(
    ("text", "found"),
    [("h:1", ("h", 1)), ("[fe80::1%eth0]:29500", ("fe80::1%eth0", 29500)), ("1.2.3.4:5", ("1.2.3.4", 5))],
)  # fmt: skip
def test_addresses_parse(text: str, found: tuple[str, int]) -> None:
    """HOST:PORT and [IPV6]:PORT; parse(render(x)) == x."""
    assert parse_address(text) == found
    assert parse_address(render_address(*found)) == found


@pytest.mark.parametrize(
    "text", ["h", "h:", ":1", "h:0", "h:65536", "http://h:1", "fe80::1:5", "h :1"]
)
def test_what_is_no_address(text: str) -> None:
    """Anything else is said to be none."""
    assert isinstance(parse_address(text), str)

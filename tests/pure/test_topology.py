"""Facts of machines and jobs, from what launchers, drivers and NVML leave behind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from twinrun.topology import driver_files, nvml
from twinrun.topology.allocator import expandable_segments
from twinrun.topology.container import container
from twinrun.topology.gpus import Gpu
from twinrun.topology.job import Job, first_host, job, open_mpi, slurm
from twinrun.topology.machine import find_gpus
from twinrun.topology.memory import leave_token, sees_token, shared_bytes
from twinrun.topology.node import NodeIdentity, identity, label_nodes, split_unseen
from twinrun.topology.visible import visible

SLURM = {
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_JOB_ID": "77",
}


def test_slurm_describes_a_step() -> None:
    """Inside srun, nodes, node number and first host come from the step's variables."""
    assert job(SLURM) == Job("slurm", 2, 1, 1, 2, 1, "gpu03", 77)


def test_a_batch_script_is_no_step() -> None:
    """Outside srun a batch script runs on one node, so that the allocation's size says nothing."""
    environ = {"SLURM_PROCID": "0", "SLURM_NNODES": "4", "SLURM_JOB_ID": "77"}
    assert slurm(environ) is None and job(environ).nnodes is None


def test_open_mpi_counts_nodes() -> None:
    """Open MPI gives sizes; the nodes follow from them."""
    environ = {
        "OMPI_COMM_WORLD_SIZE": "8",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
        "OMPI_COMM_WORLD_RANK": "5",
    }
    assert open_mpi(environ) == Job("open_mpi", 2, 1, 5, 8, 4)


def test_torchrun_inside_srun_speaks_for_its_workers() -> None:
    """torchrun's word outweighs Slurm's: it describes the workers, not the launcher."""
    workers = {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_WORLD_SIZE": "4",
        "GROUP_RANK": "1",
        "GROUP_WORLD_SIZE": "2",
    }
    assert job({**SLURM, **workers}) == Job("torchrun", 2, 1, 5, 8, 4)


@pytest.mark.parametrize(
    ("nodelist", "first"),
    [("gpu[03-05,11],cpu1", "gpu03"), ("a,b", "a"), ("x[1,2]-y[7-9]", "x1-y7"), ("one", "one")],
)
def test_first_host_of_a_node_list(nodelist: str, first: str) -> None:
    """The first host of Slurm's compressed list, zeros kept."""
    assert first_host(nodelist) == first


def _node(host: str, boot: str = "b", named: str | None = None, place: int | None = None):  # type: ignore[no-untyped-def]
    return NodeIdentity(host, boot, named, place)


def test_nodes_are_told_apart_by_host_boot_name_and_place() -> None:
    """Two processes share a node only where nothing tells theirs apart."""
    assert label_nodes([_node("a"), _node("a")]) == ("a", "a")
    assert label_nodes([_node("a"), _node("b")]) == ("a", "b")
    assert label_nodes([_node("a", "x"), _node("a", "y")]) == ("a#0", "a#1")
    assert label_nodes([_node("a", place=0), _node("a", place=1)]) == ("a#0", "a#1")
    assert label_nodes([_node("a", named="n"), _node("b", "y", named="n")]) == ("n", "n")


def test_the_launchers_node_number_counts_across_nodes_only(tmp_path: Path) -> None:
    """On one node the number is left out: ranks without it must still match."""
    one = identity({}, Job("torchrun", 1, 0), tmp_path, host="h")
    two = identity({"TWINRUN_NODE_ID": "n"}, Job("torchrun", 2, 1), tmp_path, host="h")
    assert (one.place, one.boot_id, two.place, two.named) == (None, "", 1, "n")


def test_ranks_that_do_not_see_each_others_memory_are_parted() -> None:
    """A probe that fails between two ranks of one node parts them, both ways needed."""
    together = [[0, 1], [0, 1]]
    assert split_unseen(["n", "n"], together) == ("n", "n")
    parted = split_unseen(["n", "n"], [[0, 1], [1]])
    assert len(set(parted)) == 2
    assert split_unseen(["n", "n", "m"], [[0, 1], [0, 1], [2]]) == ("n", "n", "m")


GPUS = [Gpu(0, "GPU-aa11", "X"), Gpu(1, "GPU-aa22", "X"), Gpu(2, "GPU-bb", "X", mig=True, mig_uuids=("MIG-77",))]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "shown", "trouble"),
    [
        (None, [0, 1, 2], None),
        ("", [], None),
        ("1,0", [1, 0], None),
        ("GPU-aa2", [1], None),
        ("0,7,1", [0], "'7' is none of"),
        ("GPU-aa", [], "fits several"),
        ("0,0", [], "twice"),
        ("MIG-77", [2], None),
        ("MIG-GPU-bb/1/0", [2], None),
        ("MIG-88", [], "no MIG instance"),
    ],
)
def test_visible_devices(text: str | None, shown: list[int], trouble: str | None) -> None:
    """Indices, UUID prefixes and MIG instances; what CUDA would hide is said."""
    found = visible(text, GPUS)
    assert [gpu.index for gpu in found.gpus] == shown
    assert (found.problem is None) if trouble is None else (trouble in str(found.problem))


def test_a_mig_instance_is_one_device() -> None:
    """CUDA shows exactly one device where a MIG instance is named."""
    assert visible("MIG-77", GPUS).count == 1


class _NvmlError(Exception):
    pass


def _stand_in(**more: object) -> SimpleNamespace:
    base: dict[str, object] = {
        "NVMLError": _NvmlError,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: b"NVIDIA H200",
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=1 << 30),
        "nvmlDeviceGetCudaComputeCapability": lambda handle: (9, 0),
        "nvmlDeviceGetP2PStatus": lambda one, other, what: 0,
        "nvmlDeviceGetNvLinkState": lambda handle, link: int(link < 18),
        "nvmlSystemGetDriverVersion": lambda: "580.1",
        "nvmlSystemGetCudaDriverVersion": lambda: 13000,
    }
    return SimpleNamespace(**{**base, **more})


def test_nvml_gives_gpus_and_links() -> None:
    """Names, capability, driver and NVLink counts come from NVML."""
    found = nvml.query(_stand_in())
    assert (found.name, found.capability, found.driver, found.cuda) == (
        "NVIDIA H200", (9, 0), "580.1", "13.0",
    )  # fmt: skip
    assert [str(link) for link in found.links] == ["0-1 nvlink18"]


def test_what_nvml_refuses_is_left_out() -> None:
    """A question that this driver does not answer costs that answer, not the query."""

    def refuse(*_: object) -> None:
        raise _NvmlError("not supported")

    found = nvml.query(_stand_in(nvmlDeviceGetP2PStatus=refuse, nvmlDeviceGetMemoryInfo=refuse))
    assert [link.kind for link in found.links] == ["none"]
    assert found.gpus[0].memory_bytes == 0


def test_gpus_from_the_drivers_files(tmp_path: Path) -> None:
    """Without NVML the driver's own files name the GPUs; without those, every place is listed."""
    gpu = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0/information"
    assert isinstance(driver_files.nvidia(tmp_path), str)
    gpu.parent.mkdir(parents=True)
    gpu.write_text("Model: \t\t NVIDIA H200\nGPU UUID: \t GPU-1\n")
    found = driver_files.nvidia(tmp_path)
    assert not isinstance(found, str)
    assert (found.name, found.gpus[0].uuid) == ("NVIDIA H200", "GPU-1")


def test_amd_gpus_are_the_nodes_with_simd_units(tmp_path: Path) -> None:
    """The kernel's topology lists CPUs too; they have no SIMD units."""
    for node, simd in (("0", 0), ("1", 304)):
        file = tmp_path / f"sys/class/kfd/kfd/topology/nodes/{node}/properties"
        file.parent.mkdir(parents=True)
        file.write_text(f"simd_count {simd}\ngfx_target_version 90402\n")
    found = driver_files.amd(tmp_path)
    assert not isinstance(found, str) and [gpu.name for gpu in found.gpus] == ["gfx90402"]


def test_no_gpu_is_a_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without driver, NVML or GPU yields the places looked, not an error."""
    monkeypatch.setattr(nvml, "load", lambda: "NVML: not there")
    found = find_gpus(tmp_path)
    assert found.gpus == () and len(found.missing) == 3


def test_tokens_show_whether_memory_is_shared(tmp_path: Path) -> None:
    """A token is seen where it was left, and nowhere else."""
    left = leave_token("t1", tmp_path)
    assert left is not None and sees_token("t1", tmp_path)
    assert not sees_token("t1", tmp_path / "elsewhere") and not sees_token("t2", tmp_path)
    assert leave_token("t1", tmp_path / "elsewhere") is None


def test_shared_memory_that_is_not_there_is_a_fact(tmp_path: Path) -> None:
    """A missing /dev/shm is None with the reason."""
    assert shared_bytes(tmp_path).value
    assert shared_bytes(tmp_path / "none").value is None


def test_containers_are_found_by_their_marks(tmp_path: Path) -> None:
    """A mark file, or the cgroup's name."""
    assert container(tmp_path).value == ""
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/cgroup").write_text("0::/kubepods/x\n")
    assert container(tmp_path).value == "kubepods"


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, True),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:64,expandable_segments:False"}, False),
    ],
)
def test_expandable_segments(environ: dict[str, str], on: bool) -> None:
    """Read from either of the allocator's variables."""
    assert expandable_segments(environ).value is on

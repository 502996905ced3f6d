"""The run directory: who may make it, what it holds, what ends up in it when things go wrong."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import twinrun as tr
from twinrun.errors import CaptureError, CaptureExistsError, FilterError, UsageError
from twinrun.recorder.core import Recorder, activate, deactivate
from twinrun.recorder.options import Options
from twinrun.recorder.reader import open_capture
from twinrun.recorder.rundir import create_run, finish_run

X = torch.arange(8.0)


def script(tmp_path: Path, text: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a small program that captures into ``run`` inside tmp_path."""
    program = (
        f"import torch, os, sys, time\nimport twinrun as tr\nrun = {str(tmp_path / 'run')!r}\n"
    )
    environ = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        [sys.executable, "-c", program + text],
        env=environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_an_existing_capture_is_refused(tmp_path: Path) -> None:
    """A second capture of the same path needs overwrite=True, which replaces the first whole."""
    for value in (1, 2):
        with tr.capture(tmp_path / "run", overwrite=value == 2):
            tr.dump("x", X * value)
        if value == 1:
            with pytest.raises(CaptureExistsError, match="overwrite"):
                tr.capture(tmp_path / "run").__enter__()
    capture = open_capture(tmp_path / "run")
    assert [capture.tensor(record)[1] for record in capture.records] == [2.0]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_is_no_capture_is_never_removed(tmp_path: Path) -> None:
    """overwrite=True on a directory or a link that Twinrun did not make is refused."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("dear")
    (tmp_path / "link").symlink_to(tmp_path / "home")
    for name in ("home", "link"):
        with pytest.raises(CaptureExistsError, match="no capture"):
            tr.capture(tmp_path / name, overwrite=True).__enter__()
    assert (tmp_path / "home" / "thesis.txt").read_text() == "dear"


def test_wrong_options_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    """An option that cannot be carried out raises at once and leaves no directory."""
    wrong = [{"mode": "all"}, {"steps": "-1"}, {"mesh": "tp"}, {"buffer_bytes": 5}, {"colour": 1}]
    for options in wrong:
        with pytest.raises(UsageError):
            tr.capture(tmp_path / "run", **options).__enter__()
    with pytest.raises(FilterError):
        tr.capture(tmp_path / "run", filter="layer <").__enter__()
    assert not (tmp_path / "run").exists()


def test_a_path_that_cannot_be_made(tmp_path: Path) -> None:
    """A file in the way of the path is an error that names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CaptureError, match="file"):
        tr.capture(tmp_path / "file" / "run").__enter__()


def test_filter_and_steps_choose(tmp_path: Path) -> None:
    """Only what the filter takes in the steps that were asked for is recorded."""
    with tr.capture(tmp_path / "run", filter="layer < 2 or name ~ loss", steps="1:3"):
        for _ in range(4):
            for layer in range(4):
                tr.dump(f"layers.{layer}.out", X)
            tr.dump("loss", X)
            tr.step()
    capture = open_capture(tmp_path / "run")
    points = [record.point for record in capture.records]
    names = ["layers.0.out", "layers.1.out", "loss"]
    assert [point for point in points if point[0]] == [(s, n, 0) for s in (1, 2) for n in names]


def test_a_filter_may_ask_for_the_step(tmp_path: Path) -> None:
    """A decision that depends on the step is made anew in each."""
    with tr.capture(tmp_path / "run", filter="step == 2 and not skipped"):
        for _ in range(4):
            tr.dump("x", X)
            tr.step()
    assert [record.step for record in open_capture(tmp_path / "run").records] == [2]


def test_max_bytes_stops_cleanly(tmp_path: Path) -> None:
    """Recording ends at the bound, what was taken is whole, and the capture says so."""
    with tr.capture(tmp_path / "run", max_bytes=100_000):
        for _ in range(100):
            tr.dump("x", torch.ones(1000))
    capture = open_capture(tmp_path / "run")
    assert len(capture.records) == 100_000 // 4512
    assert "max-bytes" in " ".join(capture.problems)
    assert not capture.run.complete
    assert all(capture.tensor(record).eq(1).all() for record in capture.records)


def test_max_bytes_is_one_bound_for_all_processes(tmp_path: Path) -> None:
    """Two recorders of one directory share its bound; what one gave back, the other may take."""
    create_run(tmp_path / "run", command=["x"], options=Options(max_bytes=100_000))
    counts = []
    for _ in range(2):
        recorder = Recorder(tmp_path / "run")
        counts.append(sum(recorder.observe("x", torch.ones(1000)) is not None for _ in range(15)))
        recorder.close()
    assert counts == [15, 7]


def test_a_full_disk_stops_recording_and_nothing_else(tmp_path: Path) -> None:
    """Where the disk takes no more, the program finishes and the capture says why it is cut."""
    limit = 3 << 20

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    program = (
        "import torch\nimport twinrun as tr\n"
        f"with tr.capture({str(tmp_path / 'run')!r}, buffer_bytes=1 << 20) as recorder:\n"
        "    tr.dump('small', torch.ones(4))\n"
        "    recorder.flush()\n"
        "    for _ in range(40): tr.dump('x', torch.ones(1 << 18))\n"
        "print('finished')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, timeout=120, preexec_fn=bounded, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("finished\n", 0), done.stderr
    capture = open_capture(tmp_path / "run")
    assert [record.name for record in capture.records] == ["small"]
    assert "File too large" in " ".join(capture.problems)
    assert not capture.run.complete
    assert not list((tmp_path / "run").rglob(".*.part"))


def test_a_process_that_leaves_without_exit_hooks(tmp_path: Path) -> None:
    """What is a second old is sealed, even when the process then leaves through os._exit."""
    done = script(
        tmp_path,
        "with tr.capture(run):\n"
        "    tr.dump('x', torch.ones(3))\n"
        "    time.sleep(2)\n"
        "    os._exit(0)\n",
    )
    assert done.returncode == 0, done.stderr
    capture = open_capture(tmp_path / "run")
    assert [record.name for record in capture.records] == ["x"]
    assert "did not end in order" in " ".join(capture.problems)


def test_a_step_is_sealed_soon(tmp_path: Path) -> None:
    """A step's records are sealed soon after its end, not only after a second."""
    done = script(
        tmp_path,
        "with tr.capture(run):\n"
        "    tr.dump('x', torch.ones(3))\n"
        "    time.sleep(0.3)\n"
        "    tr.step()\n"
        "    time.sleep(0.35)\n"
        "    os._exit(0)\n",
    )
    assert done.returncode == 0, done.stderr
    assert [record.name for record in open_capture(tmp_path / "run").records] == ["x"]


def test_exit_seals_what_a_block_left_open(tmp_path: Path) -> None:
    """A recorder that nobody closed is closed when the interpreter ends."""
    done = script(
        tmp_path,
        "block = tr.capture(run); block.__enter__()\ntr.dump('x', torch.ones(3))\nsys.exit(3)\n",
    )
    assert done.returncode == 3, done.stderr
    capture = open_capture(tmp_path / "run")
    assert (len(capture.records), capture.problems) == (1, ())


FORKS = """
import multiprocessing
def work(value):
    tr.dump('child', torch.full((1000,), float(value)))
    return value
if __name__ == '__main__':
    with tr.capture(run, buffer_bytes=1 << 20):
        tr.dump('parent', torch.ones(3))
        context = multiprocessing.get_context('fork')
        workers = [context.Process(target=work, args=(i,)) for i in range(3)]
        for worker in workers: worker.start()
        for _ in range(50): tr.dump('parent', torch.ones(20000))
        for worker in workers: worker.join()
        idle = os.fork()
        if idle == 0: os._exit(0)
        os.waitpid(idle, 0)
"""


def test_forked_children_record_apart(tmp_path: Path) -> None:
    """A forked child that records gets a directory of its own, one that does not gets none."""
    (tmp_path / "program.py").write_text(
        f"import torch, os\nimport twinrun as tr\nrun = {str(tmp_path / 'run')!r}\n" + FORKS
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    capture = open_capture(tmp_path / "run")
    assert len(capture.processes) == 4
    assert all(process.ended for process in capture.processes)
    values = sorted(capture.tensor(r)[0].item() for r in capture.records if r.name == "child")
    assert values == [0.0, 1.0, 2.0]
    assert sum(record.name == "parent" for record in capture.records) == 51
    assert "claimed by 4 processes" in " ".join(capture.problems)


def test_the_rank_that_becomes_known_later_is_the_processes_rank(tmp_path: Path) -> None:
    """Records made before torch.distributed was initialised carry the rank it then gave."""
    done = script(
        tmp_path,
        "import torch.distributed as dist\n"
        "with tr.capture(run):\n"
        "    tr.dump('before', torch.ones(3))\n"
        "    store = dist.HashStore()\n"
        "    dist.init_process_group('gloo', store=store, rank=0, world_size=1)\n"
        "    tr.dump('after', torch.ones(3))\n"
        "    tr.step()\n"
        "    dist.destroy_process_group()\n",
        RANK="5",
        WORLD_SIZE="8",
    )
    assert done.returncode == 0, done.stderr
    capture = open_capture(tmp_path / "run")
    assert {record.rank for record in capture.records} == {0}
    assert capture.processes[0].world_size == 1


def test_ranks_of_one_job_open_one_capture(tmp_path: Path) -> None:
    """Sibling ranks that open the same path join it; the mesh names their coordinates."""
    text = (
        "import torch, sys\nimport twinrun as tr\n"
        f"with tr.capture({str(tmp_path / 'run')!r}, overwrite=True, mesh='dp=1,tp=2'):\n"
        "    tr.dump('x', torch.ones(3))\n"
    )
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", text],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_PORT": "29599"},
        )
        for rank in range(2)
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    capture = open_capture(tmp_path / "run")
    assert [record.rank for record in capture.records] == [0, 1]
    assert [dict(record.mesh) for record in capture.records] == [
        {"dp": (0, 1), "tp": (rank, 2)} for rank in range(2)
    ]
    assert capture.problems == ()


def test_a_finished_run_says_how_it_ended(tmp_path: Path) -> None:
    """run.json tells a run that goes on from one that ended, and what went wrong."""
    create_run(tmp_path / "run", command=["train", "--fast"], options=Options())
    recorder = Recorder(tmp_path / "run")
    activate(recorder)
    tr.dump("x", X)
    deactivate()
    recorder.close()
    assert "still goes on" in " ".join(open_capture(tmp_path / "run").problems)
    finish_run(tmp_path / "run", exit_code=7, problems=["a worker was not reached"], complete=False)
    capture = open_capture(tmp_path / "run")
    assert capture.run.command == ("train", "--fast")
    assert (capture.run.exit_code, capture.problems) == (7, ("a worker was not reached",))


def test_captures_nest(tmp_path: Path) -> None:
    """A capture inside another takes over until its block ends."""
    with tr.capture(tmp_path / "outer"):
        tr.dump("a", X)
        with tr.capture(tmp_path / "inner"):
            tr.dump("b", X)
        tr.dump("c", X)
    names = {
        name: [record.name for record in open_capture(tmp_path / name).records]
        for name in ("outer", "inner")
    }
    assert names == {"outer": ["a", "c"], "inner": ["b"]}


def test_node_local_directories_read_as_one(tmp_path: Path) -> None:
    """DIR,DIR and a copy of the processes side by side give the same records."""
    for node in ("a", "b"):
        with tr.capture(tmp_path / node):
            tr.dump("x", X)
    joined = open_capture(f"{tmp_path / 'a'},{tmp_path / 'b'}")
    assert len(joined.records) == 2
    for process in (tmp_path / "b" / "processes").iterdir():
        process.rename(tmp_path / "a" / "processes" / process.name)
    assert len(open_capture(tmp_path / "a").records) == 2


def test_parameters_and_gradients(tmp_path: Path) -> None:
    """dump_parameters and dump_gradients name what they record by module path."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.BatchNorm1d(3))
    model[0].weight.grad = torch.ones(3, 2)
    with tr.capture(tmp_path / "run"):
        tr.dump_parameters(model)
        tr.dump_gradients(model)
    found = {r.name: (r.kind, r.module) for r in open_capture(tmp_path / "run").records}
    assert found["0.weight:parameter"] == ("parameter", "0")
    assert found["1.running_mean:buffer"] == ("buffer", "1")
    assert found["0.weight:parameter.grad"] == ("gradient", "0")
    assert "1.weight:parameter.grad" not in found


def test_the_files_are_as_the_format_page_says(tmp_path: Path) -> None:
    """Exact index line and header of a small capture: a change here is a new format version."""
    with tr.capture(tmp_path / "run"):
        tr.dump("x", torch.ones(2, 3), dims="t h", layer=3)
    (line,) = next((tmp_path / "run").glob("processes/*/000000.jsonl")).read_text().splitlines()
    assert line == (
        '{"number":0,"name":"x","kind":"activation","role":"dump","root":-1,"tags":{"layer":3},'
        '"dims":"t h","dims_source":"annotation","dtype":"float32","shape":[2,3],"device":"cpu",'
        '"nbytes":24,"call":0,"mark":0,"order":0,"offset":65536}'
    )
    data = next((tmp_path / "run").glob("processes/*/000000.safetensors")).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    base = 8 + length
    assert header == {
        "__metadata__": {"twinrun": "1"},
        "padding": {"dtype": "U8", "shape": [65536 - base], "data_offsets": [0, 65536 - base]},
        "0": {"dtype": "F32", "shape": [2, 3], "data_offsets": [65536 - base, 65560 - base]},
        "padding.0": {"dtype": "U8", "shape": [40], "data_offsets": [65560 - base, 65600 - base]},
    }
    assert base % 64 == 0 and len(data) == 65600
    assert data[65536:] == torch.ones(6).numpy().tobytes() + bytes(40)


def test_an_annotation_that_does_not_fit_is_told_with_its_place(tmp_path: Path) -> None:
    """The record is kept; the capture's problems name the tensor, the shape and the line."""
    with tr.capture(tmp_path / "run"):
        tr.dump("attn_out", torch.ones(4, 16, 128), dims="t h[tp]")
        tr.dump("other", X, dims="t[")
    capture = open_capture(tmp_path / "run")
    assert [record.dims for record in capture.records] == ["t h[tp]", "t["]
    first, second = capture.problems
    assert "attn_out" in first and "[4, 16, 128]" in first and "test_recorder_rundir.py:" in first
    assert "t[" in second


def test_a_filter_that_took_nothing_is_noted(tmp_path: Path) -> None:
    """A filter that declined everything is named, with a name that it declined."""
    with tr.capture(tmp_path / "run", filter="layers.*"):
        tr.dump("model.layers.0", X)
    (process,) = open_capture(tmp_path / "run").processes
    assert any(
        "took none of 1 names" in note and "model.layers.0" in note for note in process.notes
    )

"""Which processes `twinrun run` reaches, and what it leaves as it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from programs import TORCHRUN, names, program, read, run

pytestmark = pytest.mark.ranks

LINEAR = """
    import torch
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    model(torch.ones(1, 2))
"""


def test_unchanged_program(tmp_path: Path) -> None:
    """A program that knows nothing of Twinrun is observed; the summary names it."""
    ended = run(tmp_path / "a", [sys.executable, program(tmp_path, LINEAR)])
    assert ended.code == 0, ended.err
    assert names(tmp_path / "a") == [":input.input", ":output"]
    assert "twinrun: 2 records" in ended.err
    assert "rank 0" in ended.err
    assert f"pid {read(tmp_path / 'a').processes[0].pid}" in ended.err
    assert read(tmp_path / "a").run.complete


def test_own_sitecustomize_and_path(tmp_path: Path) -> None:
    """The program's own sitecustomize runs once, sys.path and PYTHONPATH stay the program's."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import sys; sys.ran = getattr(sys, 'ran', 0) + 1\n")
    text = """
        import json, sys, torch
        torch.nn.Linear(2, 2)(torch.ones(1, 2))
        import sitecustomize
        print(json.dumps([sys.ran, sys.path, sitecustomize.__file__]))
    """
    path = program(tmp_path, text)
    ended = run(tmp_path / "a", [sys.executable, path], environ={"PYTHONPATH": str(own)})
    ran, seen, file = json.loads(ended.out)
    assert ran == 1
    assert file == str(own / "sitecustomize.py")
    assert not any("recorder/boot" in entry for entry in seen)
    assert seen[1] == str(own)


def test_without_torch_nothing_is_loaded(tmp_path: Path) -> None:
    """A process that never imports torch loads nothing of Twinrun's package; nobody joined: exit 2."""
    text = """
        import sys
        print(sorted(m for m in sys.modules if m.split(".")[0] in ("twinrun", "torch", "typing", "json")))
    """
    ended = run(tmp_path / "a", [sys.executable, "-S", program(tmp_path, text)])
    plain_start = ended.out
    ended = run(
        tmp_path / "b",
        [sys.executable, program(tmp_path, "import sys\nprint('twinrun' in sys.modules)")],
    )
    assert ended.out.strip() == "False"
    assert ended.code == 2
    assert "NOBODY JOINED" in ended.err
    assert plain_start.strip() == "[]"


def test_children_of_every_kind(tmp_path: Path) -> None:
    """spawn, fork and forkserver workers and subprocesses are all reached."""
    text = """
        import multiprocessing, os, subprocess, sys, torch

        def work(how):
            torch.nn.Linear(2, 2)(torch.ones(1, 2))

        if __name__ == "__main__":
            if len(sys.argv) > 1:
                work("subprocess")
                sys.exit()
            for how in ("fork", "spawn", "forkserver"):
                process = multiprocessing.get_context(how).Process(target=work, args=(how,))
                process.start()
                process.join()
                assert process.exitcode == 0
            subprocess.run([sys.executable, __file__, "child"], check=True)
    """
    ended = run(tmp_path / "a", [sys.executable, program(tmp_path, text)])
    assert ended.code == 0, ended.err
    processes = read(tmp_path / "a").processes
    assert [process.records for process in processes] == [2, 2, 2, 2]
    assert all(process.ended for process in processes)


def test_data_loader_workers_record_nothing(tmp_path: Path) -> None:
    """Forked workers that call no module leave no trace."""
    text = """
        import torch
        from torch.utils.data import DataLoader
        model = torch.nn.Linear(1, 1)
        for batch in DataLoader(torch.ones(4, 1), batch_size=2, num_workers=2):
            model(batch)
    """
    ended = run(tmp_path / "a", [sys.executable, program(tmp_path, text)])
    assert ended.code == 0, ended.err
    capture = read(tmp_path / "a")
    assert len(capture.processes) == 1
    assert {r.step for r in capture.records} == {0, 1}


def test_unreachable_children_are_named(tmp_path: Path) -> None:
    """A child with -I or a cleaned environment is named with the reason."""
    text = """
        import os, subprocess, sys, torch
        torch.nn.Linear(2, 2)(torch.ones(1, 2))
        subprocess.run([sys.executable, "-I", "-c", "1"], check=True)
        subprocess.run([sys.executable, "-c", "2"], env={"PATH": os.environ["PATH"]}, check=True)
    """
    ended = run(tmp_path / "a", [sys.executable, program(tmp_path, text)])
    assert ended.code == 0, ended.err
    assert "2 Python processes not reached" in ended.err
    assert "-I makes Python ignore PYTHONPATH" in ended.err
    assert "environment was cleaned" in ended.err


def test_isolated_command_is_refused_with_its_reason(tmp_path: Path) -> None:
    """CMD itself with -E: it runs, nobody joins, exit 2 and the reason."""
    ended = run(tmp_path / "a", [sys.executable, "-E", program(tmp_path, LINEAR)])
    assert ended.code == 2
    assert "-E makes Python ignore PYTHONPATH" in ended.err


def test_child_without_twinrun_can_import_it(tmp_path: Path) -> None:
    """`import twinrun` works where Twinrun is not installed, and sys.path does not show it."""
    text = """
        import sys
        sys.path[:] = [p for p in sys.path if "twinrun" not in p]
        sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
        import torch
        import twinrun as tr
        tr.dump("mine", torch.ones(3), layer=2)
        print(tr.__file__)
    """
    ended = run(tmp_path / "a", [sys.executable, program(tmp_path, text)])
    assert ended.code == 0, ended.err
    assert names(tmp_path / "a") == ["mine"]


def test_torchrun(tmp_path: Path) -> None:
    """Both ranks of a torchrun job are reached; their ranks are torch.distributed's."""
    text = """
        import torch, torch.distributed as dist
        dist.init_process_group("gloo")
        torch.manual_seed(dist.get_rank())
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(torch.randn(1, 2)).sum().backward()
        optimizer.step()
        dist.destroy_process_group()
    """
    command = [*TORCHRUN, program(tmp_path, text)]
    ended = run(tmp_path / "a", command, "--gradients", "--mesh", "dp=2")
    assert ended.code == 0, ended.err
    assert "(2 ranks, 1 step)" in ended.err
    for rank in (0, 1):
        assert names(tmp_path / "a", rank) == [
            ":input.input",
            ":output",
            ":output:grad",
            "weight:parameter.grad",
            "bias:parameter.grad",
        ]
    capture = read(tmp_path / "a")
    assert {r.mesh["dp"] for r in capture.records} == {(0, 2), (1, 2)}
    by_rank = [
        capture.tensor(r).clone() for r in capture.records if r.name == "weight:parameter.grad"
    ]
    assert by_rank[0].equal(by_rank[1]), "read after the data-parallel reduction"

"""The observer changes nothing: the program's numbers, state and graphs are the same."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import twinrun as tr
from twinrun.recorder.reader import open_capture


class Seen(TorchDispatchMode):
    """Every operation that is dispatched while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.operations.append(str(func))
        return func(*args, **(kwargs or {}))


class Called(TorchFunctionMode):
    """Every torch function that is called while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: list[object] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.functions.append(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("tensor", [torch.ones(4, 4), torch.ones(4, 4).t()[1:], torch.ones(2) * 1j])
def test_modes_see_nothing(tensor: torch.Tensor, tmp_path: Path) -> None:
    """A dump inside a dispatch mode or a function mode is seen by neither, and recorded."""
    with tr.capture(tmp_path / "run"), Seen() as seen, Called() as called:
        tr.dump("x", tensor)
    assert seen.operations == []
    assert called.functions == []
    capture = open_capture(tmp_path / "run")
    assert torch.equal(capture.tensor(capture.records[0]), tensor)


def test_autograd_is_left_alone(tmp_path: Path) -> None:
    """requires_grad, the graph, the version counter and the gradient are as without."""
    x = torch.randn(4, 4, requires_grad=True)
    y = (x * 2).t()
    version, node = y._version, y.grad_fn
    with tr.capture(tmp_path / "run"):
        tr.dump("x", x)
        tr.dump("y", y)
    assert (y._version, y.grad_fn) == (version, node)
    y.sum().backward()
    assert x.grad is not None and x.grad.eq(2).all()


@pytest.mark.parametrize("block", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_grad_modes(block, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Tensors made under any grad mode are recorded inside and outside of it."""
    with tr.capture(tmp_path / "run"):
        with block():
            x = torch.ones(3, 3)
            tr.dump("inside", x.t())
            tr.dump("inside", x)
        tr.dump("outside", x.t())
    capture = open_capture(tmp_path / "run")
    assert capture.problems == ()
    assert all(capture.tensor(record).eq(1).all() for record in capture.records)


def test_global_state_is_left_alone(tmp_path: Path) -> None:
    """Random state, default dtype and device, print options and threads are as before."""
    import random

    def state() -> tuple[object, ...]:
        return (
            torch.random.get_rng_state().tolist(), random.getstate(), torch.get_default_dtype(),
            torch.get_default_device(), str(torch.tensor([1.123456789])), torch.get_num_threads(),
            torch.is_grad_enabled(), signal.getsignal(signal.SIGTERM),
        )  # fmt: skip

    before = state()
    with tr.capture(tmp_path / "run", mode="stats"):
        tr.dump("x", torch.ones(5).expand(3, 5))
        assert state() == before
    assert state() == before


def test_default_device_and_dtype_do_not_reach_the_copy(tmp_path: Path) -> None:
    """A program that set another default device or dtype is recorded as it is."""
    x = torch.arange(6.0).view(2, 3).t()
    torch.set_default_dtype(torch.float64)
    try:
        with tr.capture(tmp_path / "run"), torch.device("meta"):
            tr.dump("x", x)
    finally:
        torch.set_default_dtype(torch.float32)
    capture = open_capture(tmp_path / "run")
    assert torch.equal(capture.tensor(capture.records[0]), x)


def test_off_leaves_a_compiled_graph_whole() -> None:
    """dump, step and tags while off do not break torch.compile(fullgraph=True)."""

    def function(x: torch.Tensor) -> torch.Tensor:
        with tr.tags(layer=3):
            tr.dump("x", x, dims="t h", layer=3)
        tr.step()
        return x + 1

    compiled = torch.compile(function, fullgraph=True, backend="eager")
    assert compiled(torch.ones(3)).tolist() == [2.0, 2.0, 2.0]


def test_on_leaves_a_compiled_graph_whole_and_says_so(tmp_path: Path) -> None:
    """dump inside compiled code is left out, with a note that names it; the graph stays whole."""

    def function(x: torch.Tensor) -> torch.Tensor:
        tr.dump("inner", x)
        tr.step()
        with tr.tags(layer=3):
            return x + 1

    compiled = torch.compile(function, fullgraph=True, backend="eager")
    with tr.capture(tmp_path / "run"):
        assert compiled(torch.ones(3)).tolist() == [2.0, 2.0, 2.0]
        tr.dump("outer", torch.ones(1))
    capture = open_capture(tmp_path / "run")
    assert [record.name for record in capture.records] == ["outer"]
    assert any("'inner'" in note for note in capture.processes[0].notes)


def test_what_is_no_tensor_is_noted(tmp_path: Path) -> None:
    """dump of None, a float or a list does not disturb the program; a note says what it got."""
    with tr.capture(tmp_path / "run"):
        tr.dump("x", None)  # type: ignore[arg-type]
        tr.dump("y", [1.0])  # type: ignore[arg-type]
        tr.dump("z", torch.ones(1), tag=[1, 2])  # type: ignore[arg-type]
        tr.dump(7, torch.ones(1))  # type: ignore[arg-type]
    capture = open_capture(tmp_path / "run")
    assert [record.name for record in capture.records] == ["z", "7"]
    assert capture.records[0].tags == {"tag": "[1, 2]"}
    told = " ".join(capture.processes[0].notes)
    assert all(word in told for word in ("'x' is a NoneType", "'y' is a list", "tag 'tag'", "int"))


def test_threads_record_side_by_side(tmp_path: Path) -> None:
    """Records of several threads are all there, each with its own thread's tags."""

    def work(index: int) -> None:
        with tr.tags(thread=index):
            for _ in range(200):
                tr.dump("x", torch.full((50,), float(index)))

    with tr.capture(tmp_path / "run", buffer_bytes=1 << 20):
        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    capture = open_capture(tmp_path / "run")
    assert len(capture.records) == 800
    assert all(capture.tensor(r).eq(r.tags["thread"]).all() for r in capture.records)


def test_nested_tags_restore(tmp_path: Path) -> None:
    """An inner scope adds to the outer one and gives it back, also after an error."""
    x = torch.ones(1)
    with tr.capture(tmp_path / "run"):
        with tr.tags(layer=1, phase="a"):
            with pytest.raises(RuntimeError), tr.tags(layer=2):
                tr.dump("x", x)
                raise RuntimeError
            tr.dump("x", x, phase="b")
        tr.dump("x", x)
    tags = [dict(record.tags) for record in open_capture(tmp_path / "run").records]
    assert tags == [{"layer": 2, "phase": "a"}, {"layer": 1, "phase": "b"}, {}]


def test_tags_of_equal_values_keep_their_types(tmp_path: Path) -> None:
    """1, 1.0 and True are equal in Python; as tags each stays what it is."""
    x = torch.ones(1)
    with tr.capture(tmp_path / "run"):
        for value in (1, 1.0, True, "1"):
            tr.dump("x", x, value=value)
    values = [record.tags["value"] for record in open_capture(tmp_path / "run").records]
    assert [type(value) for value in values] == [int, float, bool, str]


def test_a_signals_handler_may_dump_and_close(tmp_path: Path) -> None:
    """A handler that runs in the middle of an observation neither blocks nor breaks it."""
    calls = []

    class Interrupted(torch.Tensor):
        """A tensor whose look is interrupted, as a signal would."""

        @property
        def is_meta(self) -> bool:
            tr.dump("handler", torch.ones(1))
            recorder.close()
            recorder.flush()
            calls.append(1)
            return False

    with tr.capture(tmp_path / "run") as recorder:
        tr.dump("x", torch.ones(3).as_subclass(Interrupted))
        tr.dump("y", torch.ones(3))
    capture = open_capture(tmp_path / "run")
    assert calls and [record.name for record in capture.records] == ["x", "y"]
    assert "'handler' was observed inside another observation" in " ".join(capture.problems)

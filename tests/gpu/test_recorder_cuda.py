"""Recording CUDA tensors: the value at the call, on any stream, without touching the program."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import twinrun as tr
from twinrun.recorder.reader import open_capture

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def values(path: Path) -> dict[str, list[torch.Tensor]]:
    """Every payload of a capture by name, in order."""
    capture = open_capture(str(path))
    found: dict[str, list[torch.Tensor]] = {}
    for record in capture.records:
        if record.has_payload:
            found.setdefault(record.name, []).append(capture.tensor(record).clone())
    return found


def test_the_value_at_the_call(tmp_path: Path) -> None:
    """A tensor that is overwritten on its stream right after the dump is recorded as it was."""
    x = torch.zeros(4 << 20, device="cuda")
    with tr.capture(str(tmp_path / "a")):
        for i in range(20):
            x.fill_(i)
            tr.dump("x", x)
            x.fill_(-1)
    seen = values(tmp_path / "a")["x"]
    assert [v.unique().tolist() for v in seen] == [[float(i)] for i in range(20)]


def test_a_freed_tensor_is_not_reused_too_early(tmp_path: Path) -> None:
    """Memory of a temporary goes back to the allocator only when its copy is done."""
    with tr.capture(str(tmp_path / "a")):
        for i in range(50):
            x = torch.full((1 << 20,), float(i), device="cuda")
            tr.dump("x", x)
            del x
            torch.full((1 << 20,), -1.0, device="cuda")
    seen = values(tmp_path / "a")["x"]
    assert [v.unique().tolist() for v in seen] == [[float(i)] for i in range(50)]


def test_side_streams(tmp_path: Path) -> None:
    """A dump is ordered on the caller's current stream, whichever that is."""
    stream = torch.cuda.Stream()
    x = torch.zeros(8 << 20, device="cuda")
    torch.cuda.synchronize()
    with tr.capture(str(tmp_path / "a")), torch.cuda.stream(stream):
        for i in range(10):
            torch.cuda._sleep(2_000_000)
            x.fill_(i)
            tr.dump("x", x)
    torch.cuda.synchronize()
    seen = values(tmp_path / "a")["x"]
    assert [v.unique().tolist() for v in seen] == [[float(i)] for i in range(10)]


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int64, torch.bool]
)
def test_dtypes_and_strides(tmp_path: Path, dtype: torch.dtype) -> None:
    """Any dtype, transposed and sliced, zero-size and 0-dim, comes back bit for bit."""
    base = torch.randint(0, 2, (64, 48), device="cuda").to(dtype)
    tensors = {"plain": base, "t": base.t(), "cut": base[3:60:2, 1:], "empty": base[:0]}
    tensors["scalar"] = base[0, 0]
    with tr.capture(str(tmp_path / "a")):
        for name, tensor in tensors.items():
            tr.dump(name, tensor)
    seen = values(tmp_path / "a")
    for name, tensor in tensors.items():
        want = tensor.contiguous().cpu()
        got = seen[name][0]
        assert got.dtype == dtype and got.shape == want.shape
        assert torch.equal(got.reshape(-1).view(torch.uint8), want.reshape(-1).view(torch.uint8))


def test_larger_than_the_buffer(tmp_path: Path) -> None:
    """A payload larger than the staging buffer is recorded whole; the program waits."""
    x = torch.arange(100 << 20, device="cuda", dtype=torch.int32)
    with tr.capture(str(tmp_path / "a")):
        tr.dump("x", x)
        x.zero_()
    assert torch.equal(values(tmp_path / "a")["x"][0], torch.arange(100 << 20, dtype=torch.int32))


def test_graph_capture_is_left_whole(tmp_path: Path) -> None:
    """Inside a CUDA graph's capture nothing is recorded, it is said, and the graph is right."""
    x = torch.ones(1024, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with tr.capture(str(tmp_path / "a")):
        tr.dump("before", x)
        with torch.cuda.graph(graph):
            y = x * 2
            tr.dump("inside", y)
        x.fill_(3)
        graph.replay()
        tr.dump("after", y)
    seen = values(tmp_path / "a")
    assert set(seen) == {"before", "after"}
    assert seen["after"][0].unique().tolist() == [6.0]
    notes = " ".join(open_capture(str(tmp_path / "a")).processes[0].notes)
    assert "CUDA graph" in notes


def test_observed_and_unobserved_training_are_bit_identical(tmp_path: Path) -> None:
    """Losses, gradients and random state are the same with every module watched."""

    def train(path: Path | None) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(64, 256),
            torch.nn.Dropout(0.1),
            torch.nn.GELU(),
            torch.nn.Linear(256, 8),
        ).cuda()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        losses = []

        def loop() -> None:
            for _ in range(5):
                loss = model(torch.randn(32, 64, device="cuda")).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach().clone())

        if path is None:
            loop()
        else:
            with tr.capture(str(path)):
                watch = tr.watch(model, taps="modules")
                loop()
                watch.remove()
        return [*losses, *model.parameters(), torch.cuda.get_rng_state()]

    plain, observed = train(None), train(tmp_path / "a")
    assert all(torch.equal(a, b) for a, b in zip(plain, observed, strict=True))
    assert len(open_capture(str(tmp_path / "a")).records) > 40


def test_statistics_of_device_tensors(tmp_path: Path) -> None:
    """Mode stats gives a device tensor's moments without a payload."""
    x = torch.tensor([1.0, -2.0, 0.0, float("nan"), float("inf")], device="cuda")
    with tr.capture(str(tmp_path / "a"), mode="stats"):
        tr.dump("x", x)
    record = open_capture(str(tmp_path / "a")).records[0]
    assert not record.has_payload and record.stats is not None
    assert record.stats["nans"] == 1 and record.stats["infs"] == 1 and record.stats["zeros"] == 1

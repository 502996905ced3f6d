"""The call boundary on a GPU: streams, autograd's threads, CUDA graphs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parents[1] / "pure"))

from observing import Block, Stack, names, observing, read, records, value  # noqa: E402
from test_boundary_backward import Checkpointed  # noqa: E402
from torch import nn  # noqa: E402

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("reentrant", [False, True])
def test_recompute_in_the_autograd_thread(tmp_path: Path, reentrant: bool) -> None:
    """The backward pass runs in another thread: names, steps and the recompute tag hold there."""
    torch.manual_seed(0)
    model = Checkpointed(reentrant).cuda()
    ids = torch.tensor([[1, 2, 3]]).cuda()
    with observing(tmp_path / "a", gradients=True):
        model(ids).backward()
        model(ids)
    first = names(tmp_path / "a", recompute=False, step=0, kind="activation")
    again = names(tmp_path / "a", recompute=True)
    assert "layers.0.up:output" in again
    assert set(again) <= set(first)
    assert names(tmp_path / "a", recompute=False, step=1, kind="activation") == first
    assert "layers.0.up:output:grad" in names(tmp_path / "a", kind="gradient")
    assert not read(tmp_path / "a").processes[0].problems


def test_values_on_a_side_stream(tmp_path: Path) -> None:
    """A value is the one at the call, also on another stream and when it is overwritten at once."""

    class Overwritten(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x @ x
            return y.fill_(float(y.shape[0]))

    module, stream = Overwritten(), torch.cuda.Stream()
    x = torch.randn(2048, 2048, device="cuda")
    kept = x.clone()
    torch.cuda.synchronize()
    with observing(tmp_path / "a", buffer_bytes=64 << 20), torch.cuda.stream(stream):
        y = module(x)
        x.zero_()
        y.zero_()
    assert torch.equal(value(tmp_path / "a", "Overwritten:input.x"), kept.cpu())
    assert value(tmp_path / "a", "Overwritten:output").unique().tolist() == [2048.0]


def test_cuda_graph(tmp_path: Path) -> None:
    """Capture works with observation on; taps that only ran inside it are told with that reason."""
    model, x = Block().cuda(), torch.ones(1, 4, device="cuda")
    with torch.no_grad():
        expected = model(x)
        graph = torch.cuda.CUDAGraph()
        with observing(tmp_path / "a"):
            with torch.cuda.graph(graph):
                y = model(x)
            graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(y, expected)
    assert records(tmp_path / "a") == []
    told = read(tmp_path / "a").processes[0].reports["unfired"]
    assert {row["reason"] for row in told} == {"called inside a CUDA graph"}


def test_inductor(tmp_path: Path) -> None:
    """torch.compile with its own backend and fullgraph: the model's inputs and outputs are observed."""
    torch._dynamo.reset()
    model = torch.compile(Stack(depth=1).cuda(), fullgraph=True)
    ids = torch.tensor([[1, 2, 3]]).cuda()
    with observing(tmp_path / "a"):
        received = model(ids)
    assert names(tmp_path / "a") == [":input.ids", ":output"]
    assert torch.equal(value(tmp_path / "a", ":output"), received.cpu())


def test_nothing_changes(tmp_path: Path) -> None:
    """Outputs, gradients and both random states are the same bit for bit with observation on."""

    def train() -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(Stack(depth=2), nn.Dropout(0.5)).cuda()
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(2):
            loss = model(torch.tensor([[1, 2, 3]]).cuda()).square().sum()
            loss.backward()
            optimizer.step()
        states = [torch.get_rng_state(), torch.cuda.get_rng_state()]
        return [loss.detach(), *states, *model.state_dict().values()]

    plain = train()
    with observing(tmp_path / "a", gradients=True, parameters=True):
        observed = train()
    assert all(torch.equal(a, b) for a, b in zip(plain, observed, strict=True))

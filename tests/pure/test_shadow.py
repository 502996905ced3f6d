"""Shadows: a module run once more, one precision up, without the program noticing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from observing import observing, read, records, value
from torch import nn
from torch.nn import functional as F

from twinrun.diagnosis import instruments


@contextmanager
def shadowing(path: Path, globs: str = "*", **options: Any) -> Iterator[None]:
    with observing(path, shadow=globs, **options) as recorder:
        joined = instruments.join(recorder)
        try:
            yield
        finally:
            joined.remove()


def refused(path: Path) -> dict[str, str]:
    return read(path).processes[0].reports.get("shadows", {}).get("modules", {})


class Norm(nn.Module):
    """RMSNorm with the casts that models write by hand."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kind = x.dtype
        x = x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * x.to(kind)


class Attention(nn.Module):
    """Softmax in float32 whatever comes in, and a rope made with float32 arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48, bias=False)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        turn = torch.arange(x.shape[-2], dtype=torch.float32)[:, None] / 100.0 ** torch.linspace(
            0, 1, 16, dtype=torch.float32
        )
        q, k = q * turn.cos().to(q.dtype), k * turn.cos().to(k.dtype)
        scores = q @ k.mT / 4 + mask
        return F.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype) @ v


def reference_norm(module: Norm, x: torch.Tensor) -> torch.Tensor:
    x = x.double()
    return module.weight.double() * (x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt())


def reference_attention(module: Attention, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    q, k, v = (x.double() @ module.qkv.weight.double().T).chunk(3, -1)
    turn = torch.arange(x.shape[-2]).double()[:, None] / 100.0 ** torch.linspace(
        0, 1, 16, dtype=torch.float64
    )
    scores = (q * turn.cos()) @ (k * turn.cos()).mT / 4 + mask.double()
    return scores.softmax(-1) @ v


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm())


CASES: list[tuple[str, Callable[[], nn.Module], Callable[..., torch.Tensor]]] = [
    ("norm", Norm, reference_norm),
    ("linear", lambda: nn.Linear(16, 8), lambda m, x: x.double() @ m.weight.double().T + m.bias.double()),
    ("attention", Attention, reference_attention),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name, make, reference", CASES)
def test_a_shadow_is_the_module_one_precision_up(
    tmp_path: Path, name: str, make: Any, reference: Any, dtype: torch.dtype
) -> None:
    """It lies a hundred times nearer to an independent float64 reference than the module does."""
    torch.manual_seed(0)
    module, x = make().to(dtype), torch.randn(2, 8, 16).to(dtype)
    more = (torch.full((8, 8), -3.0).triu(1).to(dtype),) if name == "attention" else ()
    with shadowing(tmp_path / "a"):
        out = module(x, *more)
    shadow = value(tmp_path / "a", ":shadow.output")
    expected = reference(module, x, *more)
    own = distance(out, expected)
    assert distance(shadow, expected) < own / 100
    [record] = records(tmp_path / "a", name=":shadow.output")
    precision = "float32" if dtype is torch.bfloat16 else "float64"
    assert (record.role, record.tags["precision"], record.dtype) == ("shadow", precision, precision)
    assert refused(tmp_path / "a") == {}


class Busy(nn.Module):
    """Everything that a second run could disturb: a cache, buffers, attributes, dropout, in-place."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(4))
        self.past: list[torch.Tensor] = []
        self.calls = 0

    def forward(self, x: torch.Tensor, cache: torch.Tensor, held: dict[str, Any]) -> torch.Tensor:
        self.calls += 1
        x = self.drop(self.linear(self.norm(x)))
        self.seen += x.detach().sum(0)
        self.past.append(x.detach())
        cache[self.calls] = x.detach().mean(0)
        held["n"] = held.get("n", 0) + 1
        noise = torch.rand(4) + torch.rand_like(x)
        return x * noise + cache.sum(0) + self.seen + sum(self.past)


def busy_run() -> list[Any]:
    torch.manual_seed(3)
    model, cache, held = Busy(), torch.zeros(5, 4), {}
    outs = []
    for _ in range(3):
        x = torch.randn(6, 4, requires_grad=True)
        out = model(x, cache, held)
        out.sum().backward()
        outs += [out.detach(), x.grad]
    state = [*model.state_dict().values(), *(p.grad for p in model.parameters())]
    return [*outs, *state, *model.past, cache, torch.get_rng_state(), torch.tensor(held["n"])]


def test_the_program_does_not_notice(tmp_path: Path) -> None:
    """Outputs, gradients, buffers, caches, attributes and random state are the same bits."""
    expected = busy_run()
    with shadowing(tmp_path / "a"):
        found = busy_run()
    assert len(expected) == len(found)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert refused(tmp_path / "a") == {}


def test_a_shadow_draws_the_same_numbers(tmp_path: Path) -> None:
    """With dropout, rand and a cache written in between, it stays as near as rounding."""
    with shadowing(tmp_path / "a"):
        busy_run()
    for step in range(3):
        out, shadow = (
            value(tmp_path / "a", f":{port}", step) for port in ("output", "shadow.output")
        )
        assert 0 < distance(out, shadow) < 1e-5


def test_nested_modules_have_shadows_of_their_own(tmp_path: Path) -> None:
    """One each, on the inputs that it had itself; none inside another shadow."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).bfloat16()
    with shadowing(tmp_path / "a"):
        model(torch.randn(2, 4).bfloat16())
    found = [r.name for r in records(tmp_path / "a", role="shadow")]
    assert found == ["0:shadow.output", "1:shadow.output", ":shadow.output"]
    inner = value(tmp_path / "a", "1:input.input").float() @ model[1].weight.float().T
    assert torch.allclose(value(tmp_path / "a", "1:shadow.output"), inner + model[1].bias.float())


class Raw(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        x.data_ptr()
        return x * 2


class Applies(nn.Module):
    def __init__(self, act: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x)


KEPT = torch.zeros(4)


def keep(x: torch.Tensor) -> torch.Tensor:
    KEPT.add_(x.detach().sum(0))
    return x + KEPT


REFUSED = {
    "raw": (Raw.apply, "a kernel of its own reads memory directly"),
    "bits": (lambda x: x + x.view(torch.int32), "it looks at the bits of a tensor (view with a dtype)"),
    "elsewhere": (keep, "add_ writes to a tensor that is neither its input nor its own"),
    "quantized": (
        lambda x: x + x.to(torch.float8_e4m3fn).float(), "quantized: it converts to float8_e4m3fn",
    ),
    "ids": (lambda x: x.argmax(-1), "it gives no floating tensor"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_shadow_says_why(tmp_path: Path, name: str) -> None:
    """No record, a reason in the report, and the program goes on as ever."""
    act, reason = REFUSED[name]
    x = torch.randn(3, 4)
    KEPT.zero_()
    expected = act(x)
    KEPT.zero_()
    with shadowing(tmp_path / "a"):
        assert torch.equal(Applies(act)(x), expected)
    assert records(tmp_path / "a", role="shadow") == []
    assert refused(tmp_path / "a") == {"Applies": reason}


def test_an_exception_stays_inside(tmp_path: Path) -> None:
    """A module that refuses wider types works on; its reason is the exception."""

    def only_float32(x: torch.Tensor) -> torch.Tensor:
        if x.dtype is not torch.float32:
            raise TypeError("float32 only")
        return x + 1

    with shadowing(tmp_path / "a"):
        Applies(only_float32)(torch.ones(2))
    assert refused(tmp_path / "a") == {"Applies": "TypeError: float32 only"}


def test_integer_weights_have_no_shadow(tmp_path: Path) -> None:
    """Wider arithmetic over quantized weights would be another computation."""
    module = nn.Linear(4, 4)
    module.register_buffer("qweight", torch.zeros(4, 4, dtype=torch.int32))
    with shadowing(tmp_path / "a"):
        module(torch.ones(1, 4))
    assert refused(tmp_path / "a") == {"": "integer weights: qweight is int32"}


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(tmp_path: Path, reentrant: bool) -> None:
    """Inside a checkpoint the first forward has a shadow, the recompute none; gradients are the same."""
    from torch.utils.checkpoint import checkpoint

    def run() -> list[torch.Tensor]:
        torch.manual_seed(0)
        block = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4))

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.block = block

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return checkpoint(self.block, x, use_reentrant=reentrant)

        x = torch.randn(3, 4, requires_grad=True)
        Model()(x).sum().backward()
        return [x.grad, *(p.grad for p in block.parameters()), torch.get_rng_state()]

    expected = run()
    with shadowing(tmp_path / "a", "block*"):
        found = run()
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert [r.name for r in records(tmp_path / "a", role="shadow")] == [
        "block.0:shadow.output", "block.1:shadow.output", "block.2:shadow.output",
        "block:shadow.output",
    ]  # fmt: skip


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_autograd_modes(tmp_path: Path, mode: Any) -> None:
    """A shadow is the same whatever mode the program runs in."""
    torch.manual_seed(0)
    module, x = Attention(), torch.randn(2, 8, 16)
    with shadowing(tmp_path / "a"), mode():
        module(x, torch.zeros(8, 8))
    expected = reference_attention(module, x, torch.zeros(8, 8))
    assert distance(value(tmp_path / "a", ":shadow.output"), expected) < 1e-14


def test_autocast_stays_outside(tmp_path: Path) -> None:
    """The shadow of a float32 module under autocast computes in float64."""
    torch.manual_seed(0)
    module, x = nn.Linear(16, 8), torch.randn(3, 16)
    with shadowing(tmp_path / "a"), torch.autocast("cpu", torch.bfloat16):
        module(x)
    expected = x.double() @ module.weight.double().T + module.bias.double()
    assert distance(value(tmp_path / "a", ":shadow.output"), expected) < 1e-14


def test_dumps_and_steps_inside_a_shadow_are_not_made(tmp_path: Path) -> None:
    """What the module dumps itself is recorded once."""
    import twinrun as tr

    class Dumps(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tr.dump("inside", x)
            return x + 1

    with shadowing(tmp_path / "a"):
        Dumps()(torch.ones(2))
    assert [r.name for r in records(tmp_path / "a")].count("inside") == 1


def test_a_compiled_function_inside(tmp_path: Path) -> None:
    """It runs compiled in the program, listed or not, and as it was written in the shadow."""
    called = []

    def backend(graph: Any, inputs: Any) -> Any:
        def run(*args: Any) -> Any:
            called.append(args[0].dtype)
            return graph(*args)

        return run

    compiled = torch.compile(lambda x: x.sin() * 3, backend=backend, fullgraph=True)
    module, x = Applies(compiled), torch.randn(3, 4)
    with shadowing(tmp_path / "a", operators="*"):
        first = module(x)
        second = module(x)
    assert torch.equal(first, x.sin() * 3) and torch.equal(second, first)
    assert called == [torch.float32, torch.float32]
    shadow = value(tmp_path / "a", "Applies:shadow.output")
    assert distance(shadow, x.double().sin() * 3) < 1e-15


def test_flex_attention_has_no_shadow(tmp_path: Path) -> None:
    """Operators that take functions are refused by name, and the program is not disturbed."""
    flex = pytest.importorskip("torch.nn.attention.flex_attention").flex_attention
    x = torch.randn(1, 2, 128, 16)
    expected = flex(x, x, x)
    with shadowing(tmp_path / "a", operators="*"):
        found = Applies(lambda x: flex(x, x, x))(x)
    assert torch.equal(found, expected)
    assert "flex_attention" in refused(tmp_path / "a")["Applies"]
    assert read(tmp_path / "a").processes[0].reports.get("operators") is None

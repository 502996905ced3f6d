"""The call boundary: what is recorded when modules are called."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from observing import Block, Stack, names, observing, read, records, value
from torch import nn

IDS = torch.tensor([[1, 2, 3]])


def test_names_ports_and_order(tmp_path: Path) -> None:
    """A module's tensors are named path:port, inputs before, outputs after what it calls."""
    torch.manual_seed(0)
    model = Stack(depth=1)
    with observing(tmp_path / "a"):
        expected = model(IDS)
    assert names(tmp_path / "a") == [
        ":input.ids",
        "embed:input.input",
        "embed:output",
        "layers.0:input.x",
        "layers.0.up:input.input",
        "layers.0.up:output",
        "layers.0.down:input.input",
        "layers.0.down:output",
        "layers.0:output",
        "head:input.input",
        "head:output",
        ":output",
    ]
    assert torch.equal(value(tmp_path / "a", ":output"), expected)


def test_ticks_nest(tmp_path: Path) -> None:
    """[begun, order] of a module's output encloses those of everything called inside it."""
    model = Stack(depth=1)
    with observing(tmp_path / "a"):
        model(IDS)
    by_name = {r.name: r for r in read(tmp_path / "a").records}
    root, layer, up = by_name[":output"], by_name["layers.0:output"], by_name["layers.0.up:output"]
    assert root.begun < layer.begun < up.begun < up.order < layer.order < root.order


def test_positional_and_keyword_have_one_name(tmp_path: Path) -> None:
    """A caller's choice of positional or keyword does not change a name."""
    block, x = Block(), torch.ones(1, 4)
    with observing(tmp_path / "a"):
        block(x, torch.ones(1))
        block(x=x, scale=torch.ones(1))
    first, second = (names(tmp_path / "a", step=step, role="input") for step in (0, 1))
    assert sorted(first) == sorted(second)
    assert ":input.scale" in first


def test_replaced_forward_keeps_the_names(tmp_path: Path) -> None:
    """A forward replaced by one that takes *args only has the names of the class's own."""
    linear = nn.Linear(2, 2)
    own = linear.forward
    linear.forward = lambda *args, **kwargs: own(*args, **kwargs)
    with observing(tmp_path / "a"):
        linear(torch.ones(1, 2))
    assert names(tmp_path / "a") == [":input.input", ":output"]


Pair = namedtuple("Pair", "left right")


@dataclass
class Bundle:
    inside: Any
    count: int = 3


def test_containers_are_flattened(tmp_path: Path) -> None:
    """Tuples, lists, dicts, named tuples and dataclasses, nested; only tensors; None is skipped."""

    class Many(nn.Module):
        def forward(self, *args: Any) -> Any:
            t = torch.ones(1)
            return {"a": [t, None, "text"], "b": Pair(t, (t,)), "c": Bundle(inside={"d": t})}

    with observing(tmp_path / "a"):
        Many()(torch.ones(1), (torch.ones(1), [torch.ones(1)]))
    assert [name.partition(":")[2] for name in names(tmp_path / "a")] == [
        "input.0",
        "input.1.0",
        "input.1.1.0",
        "output.a.0",
        "output.b.left",
        "output.b.right.0",
        "output.c.inside.d",
    ]


def test_input_is_the_value_at_the_call(tmp_path: Path) -> None:
    """A module that changes its input in place does not change what was recorded of it."""

    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mul_(2)

    with observing(tmp_path / "a"):
        InPlace()(torch.ones(2))
    assert torch.equal(value(tmp_path / "a", "InPlace:input.x"), torch.ones(2))
    assert torch.equal(value(tmp_path / "a", "InPlace:output"), torch.full((2,), 2.0))


def test_boundary_is_outside_of_hooks(tmp_path: Path) -> None:
    """What is recorded is what the caller passes and receives, whatever hooks make of it."""
    linear = nn.Linear(2, 2)
    linear.register_forward_pre_hook(lambda module, args: (args[0] * 3,))
    linear.register_forward_hook(lambda module, args, output: output + 1)
    x = torch.ones(1, 2)
    with observing(tmp_path / "a"):
        received = linear(x)
    assert torch.equal(value(tmp_path / "a", ":input.input"), x)
    assert torch.equal(value(tmp_path / "a", ":output"), received)


def test_own_call_is_the_boundary(tmp_path: Path) -> None:
    """A class with its own __call__ is observed there, once."""

    class Doubling(nn.Linear):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return super().__call__(x + 1) * 2

    module, x = Doubling(2, 2), torch.ones(1, 2)
    with observing(tmp_path / "a"):
        received = module(x)
    assert names(tmp_path / "a") == [":input.input", ":output"]
    assert torch.equal(value(tmp_path / "a", ":input.input"), x)
    assert torch.equal(value(tmp_path / "a", ":output"), received)


def test_call_that_a_decorator_gave(tmp_path: Path) -> None:
    """A __call__ set after its class was made, past nn.Module's own, is the boundary too."""

    class Straight(nn.Linear):
        pass

    Straight.__call__ = lambda self, x: self.forward(x) + 1
    model, x = nn.Sequential(Straight(2, 2)), torch.ones(1, 2)
    with observing(tmp_path / "a"):
        received = model(x)
    assert names(tmp_path / "a", role="output") == ["0:output", ":output"]
    assert torch.equal(value(tmp_path / "a", "0:output"), received)


def test_exception_leaves_no_scope(tmp_path: Path) -> None:
    """After a forward that raises, the next call is a root call again, under the same names."""

    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor, fail: bool) -> torch.Tensor:
            y = self.inner(x)
            if fail:
                raise RuntimeError("as planned")
            return y

    model = Failing()
    with observing(tmp_path / "a"):
        with pytest.raises(RuntimeError, match="as planned"):
            model(torch.ones(1, 2), fail=True)
        model(torch.ones(1, 2), fail=False)
    assert names(tmp_path / "a", step=1) == [
        ":input.x",
        "inner:input.input",
        "inner:output",
        ":output",
    ]


def test_steps_are_root_calls_until_marked(tmp_path: Path) -> None:
    """A step is one call of the outermost module."""
    model = Stack(depth=1)
    with observing(tmp_path / "a", taps=":output"):
        for _ in range(3):
            model(IDS)
    assert [r.step for r in records(tmp_path / "a")] == [0, 1, 2]


def test_several_roots(tmp_path: Path) -> None:
    """The first root with weights has the empty label; losses never take it; others by class."""
    loss, first, second, third = nn.MSELoss(), Stack(1), Block(), Block()
    with observing(tmp_path / "a", taps=":output,MSELoss:output,Block*:output"):
        loss(torch.ones(1), torch.ones(1))
        first(IDS)
        second(torch.ones(1, 4))
        third(torch.ones(1, 4))
    found = names(tmp_path / "a")
    assert found[:2] == ["MSELoss:output", ":output"]
    assert [n for n in found if n.count(".") == 0][2:] == ["Block:output", "Block#2:output"]
    assert [root.label for root in read(tmp_path / "a").processes[0].roots] == [
        "MSELoss",
        "",
        "Block",
        "Block#2",
    ]


def test_loss_made_anew_keeps_its_name(tmp_path: Path) -> None:
    """A module that is made at each step is one root with many calls."""
    with observing(tmp_path / "a"):
        for _ in range(3):
            nn.MSELoss()(torch.ones(1), torch.ones(1))
    assert {r.name for r in records(tmp_path / "a", role="output")} == {"MSELoss:output"}
    assert [r.step for r in records(tmp_path / "a", role="output")] == [0, 1, 2]


def test_wrapper_is_transparent(tmp_path: Path) -> None:
    """A wrapped model has the plain model's names, and each tensor is recorded once."""
    model = Stack(depth=1)
    with observing(tmp_path / "plain"):
        model(IDS)
    with observing(tmp_path / "wrapped"):
        torch.nn.DataParallel(model)(IDS)
    assert names(tmp_path / "wrapped") == names(tmp_path / "plain")
    assert read(tmp_path / "wrapped").processes[0].roots[0].module_class == "Stack"


def test_checkpoint_wrapper_and_compile_are_transparent(tmp_path: Path) -> None:
    """Wrappers inside the model leave no trace in names either."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = Stack(depth=1)
    with observing(tmp_path / "plain", taps="blocks"):
        model(IDS)
    model.layers[0] = checkpoint_wrapper(model.layers[0])
    model.head = torch.compile(model.head, backend="eager")
    with observing(tmp_path / "wrapped", taps="blocks"):
        model(IDS)
    assert names(tmp_path / "wrapped") == names(tmp_path / "plain")


def test_dynamic_classes_have_their_author_s_name(tmp_path: Path) -> None:
    """parametrize changes a module's class; the record's class is the one that was written."""
    linear = nn.Linear(2, 2)
    nn.utils.parametrize.register_parametrization(linear, "weight", nn.Identity())
    with observing(tmp_path / "a", taps=":output"):
        linear(torch.ones(1, 2))
    assert [r.module_class for r in records(tmp_path / "a")] == ["Linear"]


def test_shared_and_late_modules(tmp_path: Path) -> None:
    """A shared module has its first name; one that is added later gets its own."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(2, 2)
            self.b = self.a

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(self.b(self.a(x))) if hasattr(self, "c") else self.b(self.a(x))

    model = Shared()
    with observing(tmp_path / "a", taps="leaves"):
        model(torch.ones(1, 2))
        model.c = nn.ReLU()
        model(torch.ones(1, 2))
    assert names(tmp_path / "a", step=0, role="output") == ["a:output", "a:output"]
    assert names(tmp_path / "a", step=1, role="output") == ["a:output", "a:output", "c:output"]


def test_unregistered_module_is_named_by_its_class(tmp_path: Path) -> None:
    """A module kept in a plain list, or made for one call, is named under its caller."""

    class Hiding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = [nn.Linear(2, 2)]
            self.gate = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.Softmax(dim=-1)(self.hidden[0](self.gate(x)))

    model = Hiding()
    with observing(tmp_path / "a"):
        model(torch.ones(1, 2))
        model(torch.ones(1, 2))
    for step in (0, 1):
        assert names(tmp_path / "a", step=step, role="output") == [
            "gate:output",
            "Linear:output",
            "Softmax:output",
            ":output",
        ]


def test_root_called_through_forward(tmp_path: Path) -> None:
    """Children are named under a root that is called through .forward(), and the miss is told."""
    model = Stack(depth=1)
    with observing(tmp_path / "a", taps="modules"):
        model.forward(IDS)
        model.forward(IDS)
    assert names(tmp_path / "a", step=0, role="output") == [
        "embed:output",
        "layers.0.up:output",
        "layers.0.down:output",
        "layers.0:output",
        "head:output",
    ]
    assert names(tmp_path / "a", step=1, role="output")[-1] == ":output"
    assert any(".forward()" in note for note in read(tmp_path / "a").processes[0].notes)


def test_child_called_directly_keeps_its_name(tmp_path: Path) -> None:
    """A known model's child that the program calls itself is no root of its own."""
    model = Stack(depth=1)
    with observing(tmp_path / "a", taps="head"):
        model(IDS)
        model.head(torch.ones(1, 4))
    assert names(tmp_path / "a", role="output") == ["head:output", "head:output"]
    assert len(read(tmp_path / "a").processes[0].roots) == 1


def test_watch_observes_one_model(tmp_path: Path) -> None:
    """tr.watch observes its model only, until it is removed."""
    import twinrun as tr

    model, other = Stack(depth=1), Block()
    with observing(tmp_path / "a", everything=False):
        watch = tr.watch(model, taps="head")
        model(IDS)
        other(torch.ones(1, 4))
        watch.remove()
        model(IDS)
    assert names(tmp_path / "a") == ["head:input.input", "head:output"]


def test_unfired_taps_are_told(tmp_path: Path) -> None:
    """A glob that matches nothing and a module that is never called are reported with the reason."""
    torch._dynamo.utils.counters.clear()  # what other tests compiled is not this program's
    model = Stack(depth=1)
    model.unused = nn.Linear(2, 2)
    with observing(tmp_path / "a", taps="head,unused,vision.*"):
        model(IDS)
    told = read(tmp_path / "a").processes[0].reports["unfired"]
    assert {(row["tap"], row["reason"]) for row in told} == {
        ("unused", "module was never called"),
        ("vision.*", "no module has such a name"),
    }


def test_parameters_before_the_first_step(tmp_path: Path) -> None:
    """--parameters: every parameter and buffer once, with the values before the first forward."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with observing(tmp_path / "a", taps="none", parameters=True):
        model(torch.randn(3, 2))
        model(torch.randn(3, 2))
    assert names(tmp_path / "a") == [
        "0.weight:parameter",
        "0.bias:parameter",
        "1.weight:parameter",
        "1.bias:parameter",
        "1.running_mean:buffer",
        "1.running_var:buffer",
        "1.num_batches_tracked:buffer",
    ]
    assert torch.equal(value(tmp_path / "a", "1.running_mean:buffer"), before["1.running_mean"])


def test_off_means_untouched(tmp_path: Path) -> None:
    """While nothing records, modules run as if the boundary were not there."""
    with observing(tmp_path / "a"):
        pass
    model = Stack(depth=1)
    assert model(IDS).shape == (1, 3, 8)
    assert names(tmp_path / "a") == []


def test_dumped_state_of_a_wrapped_model(tmp_path: Path) -> None:
    """dump_parameters and dump_gradients name a wrapped model's state as the plain model's."""
    import twinrun as tr

    model = nn.DataParallel(nn.Sequential(nn.Linear(2, 2)))
    model(torch.ones(1, 2)).sum().backward()
    with observing(tmp_path / "a", everything=False):
        tr.dump_parameters(model)
        tr.dump_gradients(model)
    assert names(tmp_path / "a") == [
        "0.weight:parameter",
        "0.bias:parameter",
        "0.weight:parameter.grad",
        "0.bias:parameter.grad",
    ]

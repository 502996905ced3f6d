"""How a kernel's launch is told of its tensors, without a driver: the launch only counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from twinrun.collectives import kernel_set, quick
from twinrun.kernels.arguments import Arguments


class Noted:
    """Stands in for ``driver.Launch``: what each start was told."""

    def __init__(self, name: str, notes: list[Any]) -> None:
        self.name, self.notes, self.arguments = name, notes, Arguments(rank=1)
        self.stream: int | None = None

    def copy(self) -> Noted:
        return Noted(self.name, self.notes)

    def aim(self, stream: int) -> None:
        self.stream = stream

    def fire(self) -> int:
        told = self.arguments
        self.notes.append((self.name, told.input, told.output, told.elements, self.stream))
        return 0

    def __call__(self, stream: int) -> None:
        self.aim(stream)
        self.fire()


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(quick, "current_stream", lambda: lambda index: 100 + index)
    return []


def ready(notes: list[Any]) -> kernel_set.Ready:
    general: Any = Noted("general", notes)
    whole: Any = Noted("whole", notes)
    return kernel_set.Ready(general, whole, 2, 3, False)


@pytest.mark.parametrize("elements, shift", [(64, 0), (64, 1), (63, 0), (63, 1)])
def test_the_short_way_starts_what_the_long_one_would(
    notes: list[Any], elements: int, shift: int
) -> None:
    """Tails and unaligned tensors take the general kernel, all else the whole one; told alike."""
    made = ready(notes)
    x = torch.zeros(80, dtype=torch.bfloat16)[shift:][:elements]
    out = torch.zeros(elements, dtype=torch.bfloat16)
    made.start(x.data_ptr(), out.data_ptr(), elements)
    made.starter(elements)(x, out)
    assert notes[0] == notes[1]
    assert notes[0][0] == ("whole" if elements == 64 and not shift else "general")
    assert notes[0][1:] == (x.data_ptr(), out.data_ptr(), elements, 103)


def test_starters_of_one_kernel_do_not_disturb_each_other(notes: list[Any]) -> None:
    """Each has an argument block of its own: sizes in turn are told right."""
    made = ready(notes)
    one, two = torch.zeros(64, dtype=torch.bfloat16), torch.zeros(128, dtype=torch.bfloat16)
    small, large = made.starter(64), made.starter(128)
    for _ in range(2):
        small(one, one)
        large(two, two)
    assert [note[3] for note in notes] == [64, 128, 64, 128]


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (1, 1, 7), (2, 0, 3)])
@pytest.mark.parametrize("private", [True, False])
def test_a_new_output_is_like_its_input(
    shape: tuple[int, ...], private: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shape, dtype and device are the input's, by torch's private allocation or the public one."""
    if not private:
        monkeypatch.delattr(torch._C._dynamo.guards, "_empty_strided_cpu")
    x = torch.zeros(shape, dtype=torch.float16)
    allocate, here = quick.allocation(x.device)
    assert here is None
    first, second = (allocate(tuple(x.shape), x.stride(), x.dtype) for _ in range(2))
    assert (first.shape, first.dtype, first.device) == (x.shape, x.dtype, x.device)
    assert first.is_contiguous() and not first.requires_grad
    assert not first.numel() or first.data_ptr() != second.data_ptr()

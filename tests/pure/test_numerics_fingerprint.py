"""A fingerprint changes with any bit and with nothing else."""

from __future__ import annotations

import pytest
import torch

from twinrun import fingerprint

DTYPES = [
    torch.float32,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.int64,
    torch.bool,
    torch.complex128,
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_change_is_seen(dtype: torch.dtype) -> None:
    """Another value, another order, another dtype or shape gives another number; a copy the same."""
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).to(dtype)
    assert fingerprint(a) == fingerprint(a.clone()) == fingerprint(a.T.contiguous().T)
    b = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).to(dtype)
    assert len({fingerprint(x) for x in (a, b, a.reshape(-1), torch.zeros(2, 2))}) == 4
    assert 0 <= fingerprint(a) < 1 << 64


def test_signed_zero_and_chunks() -> None:
    """Bits count, not values; a tensor longer than a chunk is seen to its end."""
    assert fingerprint(torch.zeros(1)) != fingerprint(-torch.zeros(1))
    a = torch.arange((1 << 20) + 3)
    b = a.clone()
    b[-1] += 1
    assert fingerprint(a) != fingerprint(b)


def test_modules() -> None:
    """A module is its parameters and persistent buffers under their own names; wrappers are nothing."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    first = fingerprint(model)
    wrapper = torch.nn.Module()
    wrapper.module = model
    assert fingerprint(wrapper) == first
    model.register_buffer("scratch", torch.ones(1), persistent=False)
    assert fingerprint(model) == first
    model[1].running_mean[2] = 0.5
    assert fingerprint(model) != first


def test_the_definition() -> None:
    """The number is the documented sum, element by element."""
    from twinrun.numerics.fingerprint import _key

    def mix(value: int) -> int:
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
        return value ^ value >> 31

    a = torch.tensor([5, 7, 11], dtype=torch.uint8)
    key = _key("", a.dtype, a.shape)
    want = sum(
        mix(v ^ mix((i * 0x9E3779B97F4A7C15 + key) % 2**64)) for i, v in enumerate(a.tolist())
    )
    assert fingerprint(a) == want % 2**64

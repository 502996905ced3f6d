"""What is dumped is what is read: every type, shape, stride and layout of memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

import twinrun as tr
from twinrun.recorder.dtypes import BY_NAME
from twinrun.recorder.reader import Capture, open_capture

DTYPES = sorted(BY_NAME)
SMALL_BUFFER = 1 << 20


def captured(path: Path, *tensors: torch.Tensor, **options: object) -> Capture:
    """A capture of these tensors under the names t0, t1, ..."""
    with tr.capture(path, buffer_bytes=SMALL_BUFFER, overwrite=True, **options):
        for index, tensor in enumerate(tensors):
            tr.dump(f"t{index}", tensor)
    return open_capture(path)


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equal in type, shape and every bit."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return torch.equal(bits(left), bits(right))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """Its elements as integers: some types have no operations of their own."""
    plain = tensor.resolve_conj().resolve_neg()
    if plain.dtype.itemsize == 16:
        return torch.view_as_real(plain).contiguous().view(torch.int64)
    return plain.view(
        {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[plain.dtype.itemsize]
    )


def of_bytes(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """A tensor of this type whose bytes are all valid for it."""
    count = torch.Size(shape).numel() * dtype.itemsize
    data = torch.arange(count, dtype=torch.int64).to(torch.uint8)
    return (data % 2 if dtype is torch.bool else data).view(dtype).view(shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back_bit_for_bit(dtype: str, tmp_path: Path) -> None:
    """Every element type of torch with plain memory is recorded and read back as itself."""
    tensor = of_bytes(BY_NAME[dtype], 3, 5)
    capture = captured(tmp_path / "run", tensor)
    (record,) = capture.records
    assert capture.problems == ()
    assert record.dtype == dtype
    assert same(capture.tensor(record), tensor)


_ELEMENTS = st.sampled_from([BY_NAME[name] for name in DTYPES])
_SHAPES = st.lists(st.integers(0, 5), max_size=4)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any type, shape and stride: transposed, narrowed, stepped, expanded, 0-dim, empty."""
    tensor = of_bytes(draw(_ELEMENTS), *draw(_SHAPES))
    for _ in range(draw(st.integers(0, 2))):
        tensor = draw(st.sampled_from([_turned, _stepped, _expanded]))(tensor)
    return tensor


def _turned(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.transpose(0, -1) if tensor.ndim else tensor


def _stepped(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[..., 1::2] if tensor.ndim else tensor


def _expanded(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.unsqueeze(0).expand(3, *tensor.shape)


class Held(list[torch.Tensor]):
    """Tensors that hypothesis can name: some types have no text."""

    def __repr__(self) -> str:
        return ", ".join(f"{t.dtype} {tuple(t.shape)} {t.stride()}" for t in self)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(held=st.lists(tensors(), min_size=1, max_size=5).map(Held))
def test_any_strides_come_back(held: Held, tmp_path: Path) -> None:
    """write then read is the identity over types, shapes and strides."""
    capture = captured(tmp_path / "run", *held)
    assert capture.problems == ()
    assert [same(capture.tensor(r), t) for r, t in zip(capture.records, held, strict=True)] == [
        True
    ] * len(held)


def test_the_dumped_value_is_the_one_at_the_call(tmp_path: Path) -> None:
    """A change in place right after the dump does not reach the record."""
    x = torch.arange(1 << 16, dtype=torch.float32)
    wanted = x.clone()
    with tr.capture(tmp_path / "run"):
        for _ in range(50):
            tr.dump("x", x)
            x.neg_()
    capture = open_capture(tmp_path / "run")
    signs = [capture.tensor(record) / wanted for record in capture.records]
    assert all((sign[1:] == (-1.0) ** index).all() for index, sign in enumerate(signs))


def test_two_tensors_of_one_storage(tmp_path: Path) -> None:
    """Views of one storage are two records with their own values."""
    base = torch.arange(12.0)
    capture = captured(tmp_path / "run", base[:6], base[6:].view(2, 3))
    assert [capture.tensor(r).tolist() for r in capture.records] == [
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        [[6.0, 7.0, 8.0], [9.0, 10.0, 11.0]],
    ]


@pytest.mark.parametrize(
    "view",
    [
        lambda c: c.conj(),
        lambda c: c.conj().imag,
        lambda c: torch._neg_view(c.real.contiguous()),
        lambda c: c.mH,
    ],
)
def test_lazy_conjugates_and_negations_are_carried_out(view, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """What a conjugate or negative view stands for is recorded, not the memory behind it."""
    tensor = view(torch.randn(4, 4, dtype=torch.complex64))
    capture = captured(tmp_path / "run", tensor)
    assert same(capture.tensor(capture.records[0]), tensor)


def test_a_tensor_larger_than_the_buffer_goes_through_in_pieces(tmp_path: Path) -> None:
    """The program waits for room; nothing is dropped, nothing is cut."""
    big = torch.arange(1 << 20, dtype=torch.int32)  # four times the buffer
    capture = captured(tmp_path / "run", big[:7], big, big[:9])
    assert [
        same(capture.tensor(r), t)
        for r, t in zip(capture.records, (big[:7], big, big[:9]), strict=True)
    ] == [True] * 3
    assert capture.problems == ()


def test_many_records_fill_several_segments(tmp_path: Path) -> None:
    """Header room grows with what is recorded; every record of every segment is read."""
    x = torch.arange(4)
    with tr.capture(tmp_path / "run", buffer_bytes=SMALL_BUFFER):
        for index in range(3000):
            tr.dump("x", x + index)
    capture = open_capture(tmp_path / "run")
    assert len({record.segment for record in capture.records}) > 1
    assert [int(capture.tensor(r)[0]) for r in capture.records] == list(range(3000))
    assert [r.occurrence for r in capture.records] == list(range(3000))


def test_a_segment_is_a_safetensors_file(tmp_path: Path) -> None:
    """The official reader opens every segment and finds the tensors under their numbers."""
    held = [
        torch.randn(3, 7), torch.empty(0, 4), torch.tensor(2.5), torch.arange(5).bool(),
        torch.randn(2, dtype=torch.complex64), torch.ones(3, dtype=torch.uint16),
        torch.ones(3).to(torch.float8_e4m3fn), torch.ones(5).bfloat16(),
    ]  # fmt: skip
    captured(tmp_path / "run", *held, torch.randn(2, dtype=torch.complex128))
    (path,) = (tmp_path / "run").glob("processes/*/*.safetensors")
    with safe_open(path, framework="pt") as file:
        numbers = sorted(key for key in file.keys() if not key.startswith("padding"))  # noqa: SIM118
        assert numbers == [str(index) for index in range(len(held) + 1)]
        assert all(same(file.get_tensor(str(i)), t) for i, t in enumerate(held))
        assert file.get_tensor(str(len(held))).dtype == torch.uint8
        assert file.metadata() == {"twinrun": "1"}


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (lambda: torch.empty(3, device="meta"), "meta"),
        (lambda: torch.eye(3).to_sparse(), "sparse"),
        (lambda: torch.eye(3).to_sparse_csr(), "sparse"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantized"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
        (
            lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
            "NestedTensor",
        ),
        (lambda: torch._subclasses.FakeTensorMode().from_tensor(torch.ones(3)), "FakeTensor"),
        (lambda: torch._to_functional_tensor(torch.ones(3)), "functional"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_without_plain_memory_are_listed_with_the_reason(
    tensor, reason, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    """No crash, no guess: the record is there, without values, and says why."""
    capture = captured(tmp_path / "run", tensor())
    (record,) = capture.records
    assert not record.has_payload
    assert reason in str(record.tags["no_payload"])
    with pytest.raises(tr.TwinrunError, match="no values"):
        capture.tensor(record)


def test_inside_a_functorch_transform(tmp_path: Path) -> None:
    """A tensor inside vmap has no memory of its own; the program goes on, the record says why."""

    def probe(x: torch.Tensor) -> torch.Tensor:
        tr.dump("x", x)
        return x * 2

    with tr.capture(tmp_path / "run"):
        assert torch.vmap(probe)(torch.ones(3)).tolist() == [2.0, 2.0, 2.0]
    (record,) = open_capture(tmp_path / "run").records
    assert "torch.func" in str(record.tags["no_payload"])


def test_statistics_without_values(tmp_path: Path) -> None:
    """--mode stats keeps ten figures and no payload."""
    x = torch.tensor([1.0, -3.0, 0.0, float("nan"), float("inf"), 2.0])
    capture = captured(tmp_path / "run", x, torch.arange(4), torch.empty(0), mode="stats")
    first, second, third = capture.records
    assert first.stats is not None
    assert {key: first.stats[key] for key in ("count", "zeros", "nans", "infs")} == {
        "count": 6, "zeros": 1, "nans": 1, "infs": 1,
    }  # fmt: skip
    assert (first.stats["min"], first.stats["max"], first.stats["abs_max"]) == (-3.0, 2.0, 3.0)
    assert first.stats["l2"] == pytest.approx(14**0.5)
    assert first.stats["mean"] == 0.0
    assert first.stats["std"] == pytest.approx(3.5**0.5)
    assert second.stats is not None and second.stats["mean"] == 1.5
    assert third.stats == {"count": 0, "zeros": 0, "nans": 0, "infs": 0}
    assert not first.has_payload and first.nbytes == 24

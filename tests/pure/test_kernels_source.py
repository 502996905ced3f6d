"""Sources, variants, the argument structure: what a binary is made from and is told."""

from __future__ import annotations

import re
from ctypes import sizeof
from pathlib import Path

import pytest

from twinrun.errors import UnavailableError
from twinrun.kernels import arguments, compiler, source
from twinrun.kernels.variant import Variant

KERNELS = ("ipc_one_stage", "ipc_two_stage", "one_shot_push", "two_shot_pull", "two_shot_push")


def test_every_kernel_is_named_for_its_file() -> None:
    """The function in FILE.cu is FILE, so that it can be found by name."""
    assert source.names() == KERNELS
    for name in KERNELS:
        assert re.search(rf"extern \"C\" __global__ [^;]*?\b{name}\(", source.read(name).text)


def test_headers_are_found_through_headers() -> None:
    """The digest covers what a kernel reaches only through another header."""
    reached = [name for name, _ in source.read("one_shot_push").headers]
    assert {"mailbox.cuh", "arguments.cuh", "tensor.cuh", "order.cuh", "ptx.cuh"} == set(reached)


@pytest.mark.parametrize("changed", ["kernel", "header", "name"])
def test_the_digest_changes_with_every_part(changed: str) -> None:
    """A kernel, any of its headers, and a header's name are all part of the digest."""
    one = source.Source("k", "text", (("a.cuh", "head"),))
    other = {
        "kernel": source.Source("k", "texts", (("a.cuh", "head"),)),
        "header": source.Source("k", "text", (("a.cuh", "heads"),)),
        "name": source.Source("k", "text", (("b.cuh", "head"),)),
    }[changed]
    assert one.digest != other.digest


def test_the_argument_structure_is_the_kernels_own() -> None:
    """Fields, their order and their widths are those of arguments.cuh; nothing is padded."""
    text = dict(source.read("one_shot_push").headers)["arguments.cuh"]
    body = re.search(r"struct Arguments \{(.*?)\n\};", text, re.DOTALL)
    assert body
    told = re.findall(r"^\s+(u64|u32) (\w+)(\[MAX_WORLD\])?;", body[1], re.MULTILINE)
    names = [name for name, _ in arguments.Arguments._fields_]
    assert [name for _, name, _ in told] == names
    widths = [(8 if kind == "u64" else 4) * (8 if many else 1) for kind, _, many in told]
    assert [getattr(arguments.Arguments, name).size for name in names] == widths
    assert sizeof(arguments.Arguments) == sum(widths)


@pytest.mark.parametrize(
    "name", ["MAX_WORLD", "MAX_BLOCKS", "MAX_THREADS", "FLAG_EARLY", "PUSH_EPOCHS",
             "BARRIER_EPOCHS", "BARRIER_FLAGS", "SLOTS"],
)  # fmt: skip
def test_the_workspace_layout_is_the_kernels_own(name: str) -> None:
    """Each constant in Python has the value that arguments.cuh gives it."""
    text = dict(source.read("one_shot_push").headers)["arguments.cuh"]
    known: dict[str, int] = {}
    for found, formula in re.findall(r"constexpr u\d\d (\w+) = ([^;?]+);", text):
        known[found] = eval(formula, {}, known)
    assert known[name] == getattr(arguments, name)


@pytest.mark.parametrize("world", [2, 3, 4, 6, 8])
def test_the_blocks_that_fit_are_what_the_launch_bounds_promise(world: int) -> None:
    """resident_blocks counts on MIN_BLOCKS as arguments.cuh has it."""
    text = dict(source.read("one_shot_push").headers)["arguments.cuh"]
    assert "MIN_BLOCKS = WORLD == 2 ? 3 : WORLD <= 4 ? 2 : 1;" in text
    least = {2: 3, 3: 2, 4: 2}.get(world, 1)
    assert arguments.resident_blocks(world, 10, arguments.MAX_THREADS) == 10 * least


@pytest.mark.parametrize(
    "wrong", [{"world": 5}, {"world": 1}, {"dtype": "float64"}, {"order": "any"}]
)
def test_a_variant_that_no_kernel_has_is_refused(wrong: dict[str, object]) -> None:
    """World sizes, dtypes and orders outside the kernels' own never reach the compiler."""
    given = {"kernel": "one_shot_push", "world": 2, "dtype": "float32", **wrong}
    with pytest.raises(ValueError, match="no kernel for"):
        Variant(**given)  # type: ignore[arg-type]


def test_without_a_compiler_the_refusal_names_what_was_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every package that was looked for is named, and what to install."""

    def gone() -> None:
        raise compiler._missing(ImportError("No module named 'cuda'"))

    monkeypatch.setattr(compiler, "_nvrtc", gone)
    with pytest.raises(UnavailableError) as caught:
        compiler.compiler_version()
    told = str(caught.value)
    assert "cuda-bindings" in told and "nvidia-cuda-nvrtc" in told and "twinrun[cuda13]" in told


def test_sources_include_nothing_but_their_own() -> None:
    """No CUDA header is needed, so NVRTC needs no toolkit."""
    for path in Path(source.FOLDER).iterdir():
        included = re.findall(r'#include\s+[<"]([^>"]+)[>"]', path.read_text())
        assert all((source.FOLDER / name).is_file() for name in included), path.name

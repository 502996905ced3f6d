"""All kernels compile for all architectures, on a machine without a GPU."""

from __future__ import annotations

import pytest

from twinrun.errors import UnavailableError
from twinrun.kernels import compiler, source
from twinrun.kernels.variant import ARCHITECTURES, DTYPES, ORDERS, WORLDS, Variant

try:
    compiler.compiler_version()
except UnavailableError as error:
    pytest.skip(f"no NVRTC here: {error.seen}", allow_module_level=True)

ELF = b"\x7fELF"


def build(variant: Variant, architecture: str) -> bytes:
    return compiler.compile_source(source.read(variant.kernel), architecture, variant.defines)


@pytest.mark.parametrize("kernel", source.names())
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_for_every_architecture(kernel: str, architecture: str) -> None:
    """Four ranks, bfloat16: a cubin comes out."""
    assert build(Variant(kernel, 4, "bfloat16", whole=True), architecture).startswith(ELF)


# Every pair of choices occurs; the whole product would take minutes.
COMBINATIONS = [
    (world, dtype, ORDERS[(i + j) % 2], bool((i + j) // 2 % 2), bool(i % 2))
    for i, world in enumerate(WORLDS)
    for j, dtype in enumerate(DTYPES)
]


@pytest.mark.slow
@pytest.mark.parametrize("kernel", source.names())
@pytest.mark.parametrize(("world", "dtype", "order", "whole", "checked"), COMBINATIONS)
def test_every_world_and_dtype_compiles(
    kernel: str, world: int, dtype: str, order: str, whole: bool, checked: bool
) -> None:
    """2, 3, 4, 6 and 8 ranks in each dtype, with and without tails and checks."""
    assert build(Variant(kernel, world, dtype, order, whole, checked), "sm_90").startswith(ELF)


def test_what_does_not_compile_is_refused_with_the_compilers_words() -> None:
    """The log of the compiler is part of the error."""
    with pytest.raises(UnavailableError, match="define WORLD as 2 to 8"):
        compiler.compile_source(
            source.read("one_shot_push"), "sm_90", ("DTYPE_FLOAT32", "ORDER_RANKS")
        )


def test_an_architecture_that_the_compiler_does_not_know_is_refused() -> None:
    """A GPU newer than the compiler is a refusal with what to install."""
    with pytest.raises(UnavailableError, match="twinrun"):
        build(Variant("one_shot_push", 2, "float32"), "sm_999")

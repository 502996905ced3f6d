"""The binary of a variant for an architecture: from the cache, else compiled."""

from __future__ import annotations

from pathlib import Path

from twinrun.kernels import cache, compiler, source
from twinrun.kernels.variant import Variant


def cubin(variant: Variant, architecture: str, root: Path | None = None) -> bytes:
    """The cubin of ``variant`` for ``architecture`` (``sm_90``); ``UnavailableError``."""
    text = source.read(variant.kernel)
    version = compiler.compiler_version()
    flags = " ".join(compiler.options(architecture, variant.defines))
    key = cache.key_of(text.digest, flags, version)
    described = {"kernel": variant.kernel, "options": flags, "compiler": version}
    return cache.load_or_build(
        key,
        described,
        lambda: compiler.compile_source(text, architecture, variant.defines),
        root,
    )

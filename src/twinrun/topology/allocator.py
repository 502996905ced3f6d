"""What torch's CUDA allocator was told, as far as sharing memory depends on it."""

from __future__ import annotations

from collections.abc import Mapping

from twinrun.env import variables as V
from twinrun.topology.fact import Fact


def expandable_segments(environ: Mapping[str, str]) -> Fact[bool]:
    """Whether tensors lie in expandable segments, whose memory has no legacy IPC handle."""
    for variable in (V.PYTORCH_ALLOC_CONF, V.PYTORCH_CUDA_ALLOC_CONF):
        text = variable.get(environ)
        if text is None:
            continue
        for option in text.split(","):
            key, _, value = option.partition(":")
            if key.strip() == "expandable_segments":
                return Fact(value.strip().lower() == "true", f"{variable.name}={text}")
    return Fact(False, "torch's default")

"""The kernels that this process has loaded, one copy a device, for as long as it lives.

Loading may wait until the device is idle, which it never is while a kernel waits for a peer whose
own kernel is yet to be loaded. So what may run at the same time is loaded beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from twinrun.kernels.binary import cubin
from twinrun.kernels.driver import Function
from twinrun.kernels.variant import Variant

_loaded: dict[tuple[int, Variant], Function] = {}


def function(device: torch.device, variant: Variant) -> Function:
    """The kernel on ``device``; compiled and loaded the first time. ``UnavailableError``."""
    key = (device.index, variant)
    if key not in _loaded:
        major, minor = torch.cuda.get_device_capability(device)
        binary = cubin(variant, f"sm_{major}{minor}")
        with torch.cuda.device(device):
            _loaded[key] = Function(binary, variant.kernel)
    return _loaded[key]


def load(device: torch.device, variants: Sequence[Variant], first: int = 0) -> None:
    """Load all of ``variants``, beginning with number ``first``.

    Ranks that begin at different ones compile different ones, and find the rest in the cache.
    """
    for number in range(len(variants)):
        function(device, variants[(first + number) % len(variants)])

"""What of this process's devices a peer can reach directly, and the other way round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from twinrun.grafting.answering import Answering
from twinrun.grafting.cuda import cuda
from twinrun.grafting.layer import Layer
from twinrun.grafting.sending import Sending
from twinrun.grafting.settings import Settings

if TYPE_CHECKING:
    from twinrun.grafting.outlet import Buffer
    from twinrun.grafting.peer import Peer


def layer() -> Layer | None:
    """The devices of this process that direct channels know, None where it has none."""
    return cuda()


def receives_into(tensor: torch.Tensor) -> None:
    """This process takes values into ``tensor``: peers may show their memory to its device."""
    devices = layer()
    if devices is not None:
        devices.note(tensor)


class _Desk:
    def __init__(self, peer: Peer, check: Callable[[], None]) -> None:
        self._link = peer.link
        self.check = check

    def tell(self, header: Mapping[str, Any], fd: int | None = None) -> None:
        self._link.send(header, fd)


def attach(peer: Peer, settings: Settings, budget: Buffer, check: Callable[[], None]) -> None:
    """Give ``peer`` its direct channels; nothing is agreed on before the first GPU tensor."""
    devices, desk, who = layer(), _Desk(peer, check), str(peer.rank)
    peer.receiving = Answering(devices, desk, budget, who=who, timeout_s=settings.timeout_s)
    if devices is not None:
        peer.sending = Sending(
            devices, desk, budget, who=who, local=peer.local, wanted=settings.channel,
            through=peer.bytes_over, timeout_s=settings.timeout_s,
        )  # fmt: skip

"""Values kept for ranks that have not said what they want: exactly until nobody can ask for them any more."""

from __future__ import annotations

import pytest
import torch

from twinrun.grafting.giving import Parcel, Shelf
from twinrun.grafting.ledger import Announcement, Ledger
from twinrun.grafting.outlet import Buffer
from twinrun.grafting.point import Holding, Point, Rank

RECEIVER = Rank("target", 0)
POINT = Point(2, "x", 0)


def kept_for(ledger: Ledger) -> tuple[Shelf, Buffer]:
    """A shelf with one value for RECEIVER, which holds the name itself and has not asked."""
    buffer = Buffer(1 << 20)
    shelf = Shelf(buffer, ledger)
    holding = Holding("x", "", (), (4,), "float32", "activation")
    ledger.announce(RECEIVER, Announcement((0, 0), 0, holding))
    assert buffer.take(16)
    shelf.keep(Parcel(POINT, 0, torch.ones(4)), [])
    return shelf, buffer


@pytest.mark.parametrize(
    ("step", "ended", "left"), [(2, "", 1), (3, "", 0), (2, "has finished", 0), (0, "", 1)]
)
def test_a_value_is_kept_while_its_receiver_may_still_ask(step: int, ended: str, left: int) -> None:
    """A receiver that has gone on, or has ended, asks for nothing more, whatever it said it holds."""
    ledger = Ledger()
    shelf, buffer = kept_for(ledger)
    ledger.advance(RECEIVER, step, "")
    if ended:
        ledger.end(RECEIVER, ended)
    shelf.sweep([RECEIVER])
    assert len(shelf.kept) == left and buffer.used_bytes == 16 * left

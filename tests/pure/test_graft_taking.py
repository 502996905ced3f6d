"""One point being received while its senders say new things."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from twinrun.grafting.orders import Order
from twinrun.grafting.plan import Plan, Wait
from twinrun.grafting.point import Holding, Point
from twinrun.grafting.receiving import Taking
from twinrun.grafting.taking import PointFailed

MINE = Holding("x", "t", (), (4,), "float32", "activation")


def order() -> Order:
    return Order(Plan(()), MINE, False, {}, {}, {}, "", (), False)


def taking(made: list[Any]) -> Taking:
    exchange = Mock()
    exchange.orders.current.side_effect = made
    exchange.limit_s.return_value = 10.0
    return Taking(exchange, Point(0, "x", 0), MINE, whole=False)


def test_boxes_of_two_orders_are_never_put_together() -> None:
    """Once something was taken for one order, another one fails the point, before a box is placed."""
    first, second = order(), order()
    under_way = taking([first, second])
    under_way._collect = Mock(return_value=False)  # type: ignore[method-assign]
    under_way._collect.side_effect = lambda _: bool(under_way.got.add(0))
    with pytest.raises(PointFailed, match="changed its layout at this point"):
        under_way.run()
    assert under_way._collect.call_count == 1


def test_an_order_may_change_while_nothing_has_come() -> None:
    """Until then the newest one counts."""
    first, second = order(), order()
    under_way = taking([Wait("baseline rank 1"), first, second])
    under_way._collect = Mock(side_effect=lambda made: made is second)  # type: ignore[method-assign]
    under_way._finish = Mock(side_effect=lambda made, waited_s: made)  # type: ignore[method-assign]
    assert under_way.run() is second

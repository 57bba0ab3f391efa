"""The form of collectors: what a scrape shows of plain families."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from callmeter.errors import MissingExtraError
from callmeter.scrape import Family, Scraped, counter, gauge, histogram, told_apart

SHOWN = """\
# HELP shop_orders_total Orders.
# TYPE shop_orders_total counter
shop_orders_total{how="by post",where="town"} 3.0
shop_orders_total{how="by post",where="village"} 0.0
# HELP shop_open Whether it is open.
# TYPE shop_open gauge
shop_open{where="town"} 1.0
shop_open{where="village"} 1.0
# HELP shop_weight_grams What orders weigh.
# TYPE shop_weight_grams histogram
shop_weight_grams_bucket{le="1.0",where="town"} 2.0
shop_weight_grams_bucket{le="10.0",where="town"} 2.0
shop_weight_grams_bucket{le="+Inf",where="town"} 3.0
shop_weight_grams_count{where="town"} 3.0
shop_weight_grams_sum{where="town"} 51.5
shop_weight_grams_bucket{le="1.0",where="village"} 0.0
shop_weight_grams_bucket{le="10.0",where="village"} 0.0
shop_weight_grams_bucket{le="+Inf",where="village"} 0.0
shop_weight_grams_count{where="village"} 0.0
shop_weight_grams_sum{where="village"} 0.0
# HELP shop_returns_total Orders that came back.
# TYPE shop_returns_total counter
"""


def shop(orders: int, counts: list[int], grams: float) -> Iterator[Family]:
    yield counter("orders", "Orders.", [({"how": "by post"}, orders)])
    yield gauge("open", "Whether it is open.", True)
    yield histogram("weight_grams", "What orders weigh.", (1.0, 10.0), counts, grams)
    yield counter("returns", "Orders that came back.", [])


class Shops(Scraped):
    prefix = "shop"

    def families(self) -> Iterator[Family]:
        return told_apart(
            "where", {"town": shop(3, [2, 0, 1], 51.5), "village": shop(0, [0, 0, 0], 0.0)}
        )


def test_prometheus_text_of_every_kind() -> None:
    registry = CollectorRegistry()
    registry.register(Shops())
    assert generate_latest(registry).decode() == SHOWN


def test_without_the_client_the_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'callmeter\[prometheus\]'"):
        list(Shops().collect())

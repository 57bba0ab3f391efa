"""What requests cost by the installed price book, worked out when somebody asks for it.

Building the book takes half a second, which no request should wait for: it is built on a thread of
its own while the run goes on, and requests are priced by the time they began.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from callmeter.errors import MissingExtraError
from callmeter.money import from_pico

if TYPE_CHECKING:
    from callmeter.pricing import Pricer

logger = logging.getLogger("callmeter.sygra")

#: SyGra's model types to the provider that sells the model, as price books name it. Servers that
#: one runs oneself sell nothing. Of any other type the model's name alone decides.
_PROVIDERS = {
    "openai": "openai",
    "azureopenai": "azure",
    "azure_openai": "azure",
    "azure": "azure",
    "bedrock": "aws",
    "anthropic": "anthropic",
    "vllm": "vllm",
    "tgi": "tgi",
    "triton": "triton",
    "ollama": "ollama",
}


def provider_of(model_type: str) -> str | None:
    """Who sells a model of this type; None if the type does not say."""
    return _PROVIDERS.get(model_type.lower())


def calculate_cost(
    model_name: str, prompt_tokens: int, completion_tokens: int, model_type: str = "unknown"
) -> float:
    """USD of a request now; 0.0 for a model without a known price, never an estimate."""
    usage = {"input": prompt_tokens or 0, "output": completion_tokens or 0}
    pico = price(provider_of(model_type), model_name, time.time_ns() // 1000, usage)
    return float(from_pico(pico or 0))


class Unpriced(NamedTuple):
    """A request whose cost nobody has worked out yet."""

    label: str  # the model's name in the document
    node: str | None
    provider: str | None
    model: str  # the model's name in price books
    started_us: int
    usage: Mapping[str, int]


def price(
    provider: str | None, model: str, started_us: int, usage: Mapping[str, int]
) -> int | None:
    """Pico-USD of a request that began then; None if it is unpriced. Waits for the book."""
    pricer = _pricer()
    priced = None if pricer is None else pricer.price(provider, model, started_us, usage)
    return None if priced is None else priced.cost_pico


def prepare() -> None:
    """Begin to build the book, without waiting for it; once in a process."""
    if not _book.begun:
        _book.begun = True
        threading.Thread(target=_pricer, name="callmeter-sygra-prices", daemon=True).start()


def start_over() -> None:
    """In a forked child: a thread of the parent may have been building."""
    _book.__init__()  # type: ignore[misc]  # new lock, and the thread is not here


class _Book:
    __slots__ = ("begun", "building")

    def __init__(self) -> None:
        self.begun = False
        self.building = threading.Lock()


_book = _Book()


def _pricer() -> Pricer | None:
    with _book.building:
        return _built()


@cache
def _built() -> Pricer | None:
    """None, with one warning, where prices are not installed."""
    try:
        from callmeter.pricing import Pricer, installed_book

        return Pricer(installed_book())
    except MissingExtraError as exc:
        logger.warning("costs in metadata documents are 0.0: %s", exc)
        return None

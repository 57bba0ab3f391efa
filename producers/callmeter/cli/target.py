"""Which store a question goes to: ``--store``, a running ``callmeter up``, or a directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from callmeter.cli.options import DEFAULT_DIR
from callmeter.embedded import STORE_DIRECTORY, running
from callmeter.errors import ConfigError, UnreachableError, UsageError

if TYPE_CHECKING:
    from callmeter_sinks.clickhouse.store import Store


@contextmanager
def reading(directory: Path | None, store_url: str | None) -> Iterator[Store]:
    """A store to ask, closed afterwards.

    Raises ``ConfigError`` when there is nothing to read, and what opening the store raises.
    """
    from callmeter_sinks.clickhouse.opening import open_store

    store = open_store(_url(directory, store_url))
    try:
        yield store
    finally:
        store.close()


@contextmanager
def correcting(
    directory: Path | None, kafka_url: str | None, store_url: str | None, *, writes: str
) -> Iterator[tuple[str, Store, Callable[[], None]]]:
    """For what is made from the store and sent to the log: its URL, the store, a check of health.

    ``writes`` names what will be sent, in the plural; "" if nothing will, then a store suffices.
    Raises ``UsageError`` when the places named do not go together, and what ``reading`` raises.
    """
    if kafka_url is not None and directory is not None:
        raise UsageError("give --dir or --kafka, not both")
    if kafka_url is not None and store_url is None:
        raise UsageError("--kafka needs --store too: what is stored is what is corrected")
    if kafka_url is None and store_url is not None and writes:
        raise UsageError(f"{writes} go through the log: give --kafka beside --store, or --dir")
    if kafka_url is not None or not writes:
        with reading(directory, store_url) as store:
            yield kafka_url or "", store, lambda: None
        return
    from callmeter.cli.replay import destination

    require_data(directory)
    with destination(directory, None, None) as (url, near, healthy):
        if near is None:
            raise UnreachableError("the directory's store is not in sight")
        yield url, near, healthy


def _url(directory: Path | None, store_url: str | None) -> str:
    if directory is not None and store_url is not None:
        raise UsageError("give --dir or --store, not both")
    if store_url is not None:
        return store_url
    home = directory or Path(DEFAULT_DIR)
    owner = running(home)
    if owner is not None:
        return owner.store_url
    require_data(home)
    return f"chdb:{home / STORE_DIRECTORY}"


def require_data(directory: Path | None) -> None:
    """``ConfigError`` unless the directory has a store: a question makes none."""
    home = directory or Path(DEFAULT_DIR)
    if not (home / STORE_DIRECTORY).is_dir():
        raise ConfigError(
            f"no data in {home}: start `callmeter up`, or name the place with --dir or --store"
        )

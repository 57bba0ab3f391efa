"""Which store a question goes to: ``--store``, a running ``callmeter up``, or a directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from callmeter.cli.options import DEFAULT_DIR
from callmeter.embedded import STORE_DIRECTORY, running
from callmeter.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from callmeter_sinks.clickhouse.store import Store


@contextmanager
def reading(directory: Path | None, store_url: str | None) -> Iterator[Store]:
    """A store to ask, closed afterwards.

    Raises ``ConfigError`` when there is nothing to read, and what opening the store raises.
    """
    from callmeter_sinks.clickhouse.store import open_store

    store = open_store(_url(directory, store_url))
    try:
        yield store
    finally:
        store.close()


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

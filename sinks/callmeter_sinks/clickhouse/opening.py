"""Opens the store that a URL names, or each of its shards.

    open_store("chdb:./.callmeter/store")                       ClickHouse inside this process
    open_store("clickhouse://user:password@host:8123/callmeter")     a server over HTTP
    open_store("clickhouses://host:8443/callmeter?cluster=main")     the same with TLS, on a cluster
    open_store("clickhouse://host1,host2/callmeter?cluster=main")    several shards, to be read
    open_shards("clickhouse://host1,host2/callmeter?cluster=main")   the same, to be written to

Errors are those of ``store``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from callmeter.errors import ConfigError
from callmeter_sinks.clickhouse.http_url import HttpUrl
from callmeter_sinks.clickhouse.shard_book import check_opened
from callmeter_sinks.clickhouse.sharding import Sharding
from callmeter_sinks.clickhouse.shards import Shards
from callmeter_sinks.clickhouse.store import Store


def open_store(
    url: str, environ: Mapping[str, str] | None = None, *, create_database: bool = False
) -> Store:
    """Open the store that ``url`` names; the caller closes it.

    User and password come from the URL, else from ``CALLMETER_STORE_USER``,
    ``CALLMETER_STORE_PASSWORD`` or ``CALLMETER_STORE_PASSWORD_FILE``. Query options of a server
    URL: ``cluster=NAME``, ``ca=FILE``, ``verify=no``, ``timeout=SECONDS``,
    ``compress=lz4|zstd|gzip|no``, ``replicated=no`` (tests only).
    Several addresses are several shards, in order, and what is opened is their read side: SELECT
    alone, over all. ``open_shards`` opens them to be written to.
    ``create_database`` makes a server's database first (``callmeter migrate``).
    Raises ``ConfigError`` for a URL that is none of the forms, and the module's errors.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "chdb":
        from callmeter_sinks.clickhouse.chdb_store import ChdbStore

        if not rest:
            raise ConfigError("a chdb store needs a directory: chdb:DIR")
        return ChdbStore(rest)
    if scheme in ("clickhouse", "clickhouses"):
        from callmeter_sinks.clickhouse.read_side import open_read_side

        urls = HttpUrl.parse_shards(url, os.environ if environ is None else environ)
        if len(urls) > 1:
            return _checked(open_read_side(urls))
        return _open_shards(urls, create_database)[0]
    raise ConfigError(
        "a store is chdb:DIR, clickhouse://user:password@host:port/db or clickhouses://…"
    )


def open_shards(
    url: str, environ: Mapping[str, str] | None = None, *, create_database: bool = False
) -> Shards:
    """Open every shard that ``url`` names, to write to it; a store that is whole is its one shard.

    The caller closes them. Options and errors are those of ``open_store``.
    """
    if url.partition(":")[0] not in ("clickhouse", "clickhouses"):
        return Shards([open_store(url, environ, create_database=create_database)])
    urls = HttpUrl.parse_shards(url, os.environ if environ is None else environ)
    return Shards(_open_shards(urls, create_database))


def _open_shards(urls: Sequence[HttpUrl], create_database: bool) -> list[Store]:
    from callmeter_sinks.clickhouse.http_store import HttpStore

    opened: list[Store] = []
    try:
        for index, url in enumerate(urls):
            sharding = Sharding(len(urls), url.database, index) if len(urls) > 1 else None
            store = HttpStore(url, create_database=create_database, sharding=sharding)
            opened.append(store)
            _checked(store)
    except BaseException:
        Shards(opened).close()
        raise
    return opened


def _checked(store: Store) -> Store:
    """The store, if it is what its URL says; closed if not."""
    try:
        check_opened(store)
    except BaseException:
        store.close()
        raise
    return store

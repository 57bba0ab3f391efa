"""A ClickHouse server over HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from callmeter.errors import MissingExtraError, UnreachableError
from callmeter_sinks.clickhouse import params as binding
from callmeter_sinks.clickhouse.http_url import HttpUrl
from callmeter_sinks.clickhouse.refusals import refused
from callmeter_sinks.clickhouse.sharding import Sharding
from callmeter_sinks.clickhouse.store import INSERT_SETTINGS, PermanentStoreError, Result

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


_CHUNK_BYTES = 2**20


class HttpStore:
    """A ``Store`` over a server. Statements of several threads run side by side.

    The client re-sends a read, and an insert, once when the connection dies under it: harmless for
    reads, and harmless for inserts that carry a token.
    """

    embedded = False

    def __init__(
        self,
        url: HttpUrl,
        *,
        create_database: bool = False,
        sharding: Sharding | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """``settings`` go with every statement; ``sharding`` says which of several shards it is."""
        self.replicated = url.replicated
        self.cluster = url.cluster
        self.sharding = sharding
        self._settings = dict(settings or {})
        self.name = url.display()
        self._closed = False
        if create_database and url.database != "default":
            self._create_database(url)
        self._client = self._connect(url, url.database)

    def _connect(self, url: HttpUrl, database: str) -> Client:
        try:
            import clickhouse_connect
        except ImportError as exc:
            raise MissingExtraError("clickhouse-connect", "sinks") from exc
        with refused(self.name):
            return clickhouse_connect.get_client(
                host=url.host,
                port=url.port,
                username=url.user,
                password=url.password,
                database=database,
                secure=url.secure,
                verify=url.verify,
                ca_cert=url.ca_file,
                compress=url.compress,
                connect_timeout=min(10, url.timeout_s),
                send_receive_timeout=url.timeout_s,
                client_name="callmeter",
                settings=self._settings,
                # One session admits one statement at a time; without one, threads do not collide.
                autogenerate_session_id=False,
                tz_mode="aware",
            )

    def _create_database(self, url: HttpUrl) -> None:
        client = self._connect(url, "default")
        on_cluster = f" ON CLUSTER `{url.cluster}`" if url.cluster else ""
        try:
            with refused(self.name):
                client.command(f"CREATE DATABASE IF NOT EXISTS `{url.database}`{on_cluster}")
        finally:
            client.close()

    def _engine(self) -> Client:
        if self._closed:
            raise PermanentStoreError(0, "the store is closed")
        return self._client

    def command(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        bound = binding.checked(sql, params)
        with refused(self.name):
            self._engine().command(sql, parameters=bound, settings=dict(settings or {}))

    def query(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Result:
        bound = binding.checked(sql, params)
        with refused(self.name):
            answer = self._engine().query(sql, parameters=bound, settings=dict(settings or {}))
            return Result(tuple(answer.column_names), list(map(tuple, answer.result_rows)))

    def query_bytes(
        self,
        sql: str,
        fmt: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> bytes:
        bound = binding.checked(sql, params)
        with refused(self.name):
            answer = self._engine().raw_query(
                sql, parameters=bound, settings=dict(settings or {}), fmt=binding.format_name(fmt)
            )
            return bytes(answer)

    def query_file(
        self,
        sql: str,
        fmt: str,
        path: Path,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        bound = binding.checked(sql, params)
        from urllib3.exceptions import HTTPError

        with path.open("wb") as out:
            with refused(self.name):
                answer: Any = self._engine().raw_stream(
                    sql, parameters=bound, settings=dict(settings or {}),
                    fmt=binding.format_name(fmt),
                )  # fmt: skip
            try:
                shutil.copyfileobj(answer, out, _CHUNK_BYTES)
            except HTTPError as exc:  # the server broke off: what it said then is in the answer
                raise UnreachableError(f"{self.name} broke off its answer: {exc}") from exc
            finally:
                answer.close()

    def insert_block(
        self,
        table: str,
        columns: Sequence[str],
        block: bytes,
        *,
        fmt: str = "RowBinary",
        token: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        wanted = {**INSERT_SETTINGS, **(settings or {})}
        if token is not None:
            wanted["insert_deduplication_token"] = token
        with refused(self.name):
            self._engine().raw_insert(
                binding.table_name(table),
                column_names=list(columns),
                insert_block=block,
                settings=wanted,
                fmt=binding.format_name(fmt),
            )

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._client.close()

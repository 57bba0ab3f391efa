"""Where the doctor looks, and in which order: collector, directory, log, store, spool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from callmeter.cli import options
from callmeter.cli.doctor_collector import look_at_collector
from callmeter.cli.doctor_finding import Finding, State, looked
from callmeter.cli.doctor_local import look_at_directory, look_at_spool
from callmeter.errors import CallmeterError

_SPOOL = Path(".callmeter/spool")


class Places:
    """What to look at: the places that were named, or else the embedded form's directory."""

    def __init__(
        self,
        directory: Path | None,
        kafka_url: str | None,
        store_url: str | None,
        url: str | None,
        spool: Path | None,
    ) -> None:
        # CALLMETER_URL may name a Kafka, which is looked at by --kafka.
        url = url if url is not None and url.startswith("http") else None
        named = (kafka_url, store_url, url) != (None, None, None)
        self.directory = directory or (None if named else Path(options.DEFAULT_DIR))
        self.kafka_url = kafka_url
        self.store_url = store_url
        self.url = url
        self.spool = spool or (_SPOOL if _SPOOL.is_dir() else None)

    def look(self, *, thorough: bool = True) -> Iterator[Finding]:
        """Every finding, in the order of the flow; not ``thorough`` leaves out what is costly."""
        home = self.directory
        if self.url is not None:
            yield from look_at_collector(self.url)
        if home is not None:
            yield from looked(
                "directory", "operations.md#embedded", lambda: look_at_directory(home)
            )
        if self.kafka_url is not None:
            from callmeter.cli.doctor_log import look_at_kafka

            yield from look_at_kafka(self.kafka_url)
        yield from self._stored(thorough=thorough)
        spool = self.spool
        if spool is not None:
            yield from looked("spool", "operations.md#spool", lambda: look_at_spool(spool))

    def store_to_ask(self) -> str | None:
        """The store's URL; of the embedded form only while `up` serves it; None without one."""
        if self.store_url is not None or self.directory is None:
            return self.store_url
        from callmeter.embedded import running

        owner = running(self.directory)
        return None if owner is None else owner.store_url

    def _stored(self, *, thorough: bool) -> Iterator[Finding]:
        url = None
        with suppress(ModuleNotFoundError):  # told by the directory's finding
            url = self.store_to_ask()
        if url is None:
            return
        from callmeter.cli.doctor_store import look_at_store
        from callmeter_sinks.clickhouse.opening import open_store

        try:
            store = open_store(url)
        except CallmeterError as exc:
            yield Finding("store", State.WRONG, str(exc), "operations.md#store")
            return
        try:
            yield from look_at_store(store, thorough=thorough)
        finally:
            store.close()

"""Reads and publishes the price book, in a directory's log or on Kafka."""

from __future__ import annotations

import asyncio
from pathlib import Path

from callmeter.cli.options import DEFAULT_DIR
from callmeter.embedded import LOG_FILE
from callmeter.errors import ConfigError, UsageError
from callmeter.log.sqlite_log import SqliteLog
from callmeter.pricing import PriceBook, book_from_json
from callmeter.pricing.live import BOOK_KEY, book_record


def published(directory: Path | None, kafka_url: str | None) -> PriceBook | None:
    """The book that meters work from, or None if none was ever published."""
    if _on_kafka(directory, kafka_url):
        from callmeter.log.kafka_settings import KafkaSettings
        from callmeter.log.kafka_state import read_table

        rows = asyncio.run(read_table(KafkaSettings.from_url(kafka_url or ""), "prices"))
    else:
        with _log(directory) as log:
            rows = log.rows("prices", 0)
    return book_from_json(rows[BOOK_KEY]) if BOOK_KEY in rows else None


def publish(book: PriceBook, directory: Path | None, kafka_url: str | None) -> None:
    """Append the book to the topic ``prices``; durable on return."""
    record = book_record(book)
    if _on_kafka(directory, kafka_url):
        from callmeter.log import kafka_state
        from callmeter.log.kafka_settings import KafkaSettings

        settings = KafkaSettings.from_url(kafka_url or "")
        asyncio.run(kafka_state.publish(settings, record.topic, {BOOK_KEY: record.value}))
        return
    with _log(directory) as log:
        log.append([record])


def _on_kafka(directory: Path | None, kafka_url: str | None) -> bool:
    if directory is not None and kafka_url is not None:
        raise UsageError("give --dir or --kafka, not both")
    return kafka_url is not None


def _log(directory: Path | None) -> SqliteLog:
    home = directory or Path(DEFAULT_DIR)
    if not (home / LOG_FILE).exists():
        raise ConfigError(f"no log in {home}: start `callmeter up`, or give --dir or --kafka")
    return SqliteLog(home / LOG_FILE)

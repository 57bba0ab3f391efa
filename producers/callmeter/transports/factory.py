"""From a URL to a transport. Nothing is imported that the URL does not ask for."""

from __future__ import annotations

from callmeter.errors import ConfigError, MissingExtraError
from callmeter.schema.topics import DEFAULT_PREFIX
from callmeter.transports.options import COMPRESSIONS, TransportOptions
from callmeter.transports.protocol import Transport
from callmeter.transports.url import http_endpoint, jsonl_path, scheme_of


def open_transport(url: str, *, settings: TransportOptions | None = None) -> Transport:
    """The transport of a URL, not yet opened: nothing is connected, no thread runs.

    ``ConfigError`` for a URL or setting that cannot work, ``MissingExtraError`` if its part is not
    installed. A backend that is away is no error here.
    """
    options = TransportOptions() if settings is None else settings
    if options.compression not in COMPRESSIONS:
        raise ConfigError(
            f"unknown compression {options.compression!r}; there are {', '.join(COMPRESSIONS)}"
        )
    scheme = scheme_of(url)
    if scheme in ("kafka", "kafka+ssl"):
        return _kafka(url, options)
    if scheme in ("http", "https"):
        from callmeter.transports.http import HttpTransport

        return HttpTransport(http_endpoint(url), options)
    if scheme == "jsonl":
        from callmeter.transports.jsonl import JsonlTransport

        return JsonlTransport(jsonl_path(url))
    if scheme == "memory":
        from callmeter.transports.memory import MemoryTransport

        return MemoryTransport()
    from callmeter.transports.noop import NoopTransport

    return NoopTransport()


def _kafka(url: str, options: TransportOptions) -> Transport:
    from dataclasses import replace

    from callmeter.log.kafka_settings import KafkaSettings

    settings = KafkaSettings.from_url(url, options.environ)
    if options.prefix and settings.prefix == DEFAULT_PREFIX:
        settings = replace(settings, prefix=options.prefix)
    try:
        from callmeter.transports.kafka import KafkaTransport
    except ImportError as exc:
        raise MissingExtraError("the Kafka transport", "kafka") from exc
    return KafkaTransport(settings, options)

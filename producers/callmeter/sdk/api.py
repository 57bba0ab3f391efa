"""The module's functions: the default client, behind the names that ``callmeter`` re-exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from callmeter.sdk import lifecycle
from callmeter.sdk.call import NO_CALL, Call, new_call
from callmeter.sdk.client import Client
from callmeter.sdk.containment import CONTAINMENT, logger
from callmeter.sdk.context import LabelBlock
from callmeter.sdk.experiment import Experiment
from callmeter.sdk.hot import HotDefault, generation_with
from callmeter.sdk.results import FlushResult, Stats
from callmeter.settings import is_true, resolve


class _Default(HotDefault):
    """The default instance: the one global that may be replaced."""

    __slots__ = ("client", "warned")

    def __init__(self) -> None:
        self.client: Client | None = None
        self.intake = None
        self.warned = False


_default = _Default()


def init(
    url: str | None = None,
    *,
    project: str | None = None,
    environment: str | None = None,
    service: str | None = None,
    api_key: str | None = None,
    spool_dir: str | None = None,
    durable: bool | None = None,
    max_queue_bytes: int | None = None,
    drop: str | None = None,
    flush_delay_s: float | None = None,
    max_batch_events: int | None = None,
    shutdown_timeout_s: float | None = None,
    sample_rate: float | None = None,
    redact_keys: Sequence[str] | None = None,
    record_inputs: bool | None = None,
    record_outputs: bool | None = None,
    max_text_chars: int | None = None,
    tags: Mapping[str, str] | None = None,
    **more: Any,
) -> Client:
    """Start metering: make the default client. Calling it again flushes and replaces the old one.

    Every argument is a setting (docs/reference/settings.md); one not given comes from
    ``CALLMETER_<NAME>``, then ``callmeter.toml``, then its default. Without any URL the local
    collector is used if it answers; else one warning, and nothing is metered. ``ConfigError`` for a
    value that cannot work, ``MissingExtraError`` if the URL's transport is not installed.

    >>> import callmeter
    >>> callmeter.init("http://127.0.0.1:4248", project="shop")
    """
    given = {
        "url": url,
        "project": project,
        "environment": environment,
        "service": service,
        "api_key": api_key,
        "spool_dir": spool_dir,
        "durable": durable,
        "max_queue_bytes": max_queue_bytes,
        "drop": drop,
        "flush_delay_s": flush_delay_s,
        "max_batch_events": max_batch_events,
        "shutdown_timeout_s": shutdown_timeout_s,
        "sample_rate": sample_rate,
        "redact_keys": redact_keys,
        "record_inputs": record_inputs,
        "record_outputs": record_outputs,
        "max_text_chars": max_text_chars,
        "tags": tags,
        **more,
    }
    return use(Client(resolve(given)))


def use(client: Client) -> Client:
    """Make a client the default one; the client it replaces is closed."""
    old = _default.client
    _default.client, _default.intake = client, client.intake
    if old is not None and old is not client:
        old.close()
    return client


def swap(client: Client | None) -> Client | None:
    """Make a client (or none) the default one, closing nothing. Returns the one before."""
    before, _default.client = _default.client, client
    refresh()
    return before


def default_client() -> Client | None:
    """The default client, if ``init`` was called."""
    return _default.client


def refresh() -> None:
    """The default client's intake has changed: after a fork or ``close``."""
    client = _default.client
    _default.intake = None if client is None else client.intake


lifecycle.on_fork(refresh)


def _no_client() -> Client | None:
    """The slow path of every function: closed, disabled, or ``init`` was never called."""
    client = _default.client
    if client is None and not _default.warned:
        _default.warned = True
        import os

        if not is_true(os.environ.get("CALLMETER_DISABLED")):
            logger.warning("nothing is metered: callmeter.init() was not called")
    return client


def _generation(
    name: str | None = None,
    *,
    model: str,
    provider: str | None = None,
    operation: str = "chat",
    inputs: Any = None,
    parent: Call | str | None = None,
    estimate: Decimal | str | int | None = None,
    tags: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> Call:
    """A call to a model, as a sync or async context manager.

    ``inputs`` are kept only if inputs are recorded. ``parent`` is a ``Call`` or a W3C
    ``traceparent``; without it the call around this one, in the same task or thread, is the parent.
    ``estimate`` (USD) is what a budget guard should expect. ``attributes`` may be anything that
    JSON can say; ``user``, ``session``, ``node``, ``phase``, ``program``, ``service_tier``,
    ``response_model``, ``finish_reason``, ``http_status`` and ``attempts`` are fields of their own.

    >>> with callmeter.generation("answer", model="gpt-4o-mini", provider="openai") as call:
    ...     call.record(ask())
    """
    client = _no_client()
    if client is None:
        return NO_CALL
    return client.generation(
        name,
        model=model,
        provider=provider,
        operation=operation,
        inputs=inputs,
        parent=parent,
        estimate=estimate,
        tags=tags,
        **attributes,
    )


def _absent() -> Call:
    """What a call is while nothing is metered."""
    client = _no_client()
    return NO_CALL if client is None else client.absent()


if TYPE_CHECKING:
    generation = _generation
else:
    generation = generation_with(_default, Call, _absent, _generation)
    generation.__wrapped__ = _generation  # what inspect.signature and help() show
    generation.__doc__ = _generation.__doc__
    generation.__module__ = __name__
    generation.__name__ = generation.__qualname__ = "generation"


def operation_call(name: str, operation: str, parent: Call | None = None) -> Call:
    """A call that is no model call: a program, a node, a tool."""
    intake = _default.intake
    if intake is None:
        return _absent()
    return new_call(
        intake, name, {"operation": operation}, None if parent is None else {"frame": parent}
    )


def metric(
    name: str,
    value: float,
    *,
    step: int | None = None,
    ts: float | None = None,
    labels: Mapping[str, Any] | None = None,
) -> None:
    """One finite number of a series, for example a loss or a score.

    ``ts`` is seconds since the epoch (default: now). A value that is no finite number is refused.
    """
    client = _default.client or _no_client()
    if client is not None:
        client.metric(name, value, step=step, ts=ts, labels=labels)


def annotation(
    text: str,
    *,
    call: Call | str | None = None,
    experiment: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    ts: float | None = None,
) -> None:
    """Text on a call, an experiment or the project, with JSON metadata."""
    client = _default.client or _no_client()
    if client is not None:
        client.annotation(text, call=call, experiment=experiment, metadata=metadata, ts=ts)


def cost(
    usd: Decimal | str | int,
    *,
    call: Call | str | None = None,
    provider: str | None = None,
    model: str | None = None,
    started: float | None = None,
    source: str,
    note: str | None = None,
) -> None:
    """Money apart from its call, in USD: a bill or a correction. Never a float."""
    client = _default.client or _no_client()
    if client is not None:
        client.cost(
            usd,
            call=call,
            provider=provider,
            model=model,
            started=started,
            source=source,
            note=note,
        )


def experiment(
    slug: str,
    *,
    description: str | None = None,
    meta: Mapping[str, Any] | None = None,
    resume: bool = True,
) -> Experiment:
    """Open or join the experiment ``slug`` of this project."""
    client = _default.client or _no_client() or _off()
    return client.experiment(slug, description=description, meta=meta, resume=resume)


def tags(**tags: Any) -> LabelBlock:
    """A with-block whose calls carry these tags; an inner block wins."""
    return LabelBlock(tags={k: v if type(v) is str else str(v) for k, v in tags.items()})


def phase(name: str) -> LabelBlock:
    """A with-block whose calls belong to a phase, for example ``inference`` or ``reward``."""
    return LabelBlock(phase=name)


def program(name: str) -> LabelBlock:
    """A with-block whose calls belong to a program."""
    return LabelBlock(program=name)


def flush(timeout_s: float = 5.0) -> FlushResult:
    """Send everything now and wait; see ``FlushResult``."""
    return (_default.client or _off()).flush(timeout_s)


def flush_or_raise(timeout_s: float = 5.0, retries: int = 3) -> FlushResult:
    """``flush``, with ``retries`` more rounds; ``DeliveryError`` if anything is pending or lost."""
    return (_default.client or _off()).flush_or_raise(timeout_s, retries)


def stats() -> Stats:
    """Counters of the default client."""
    return (_default.client or _off()).stats()


def close(timeout_s: float = 5.0) -> None:
    """Deliver within the time and end the default client."""
    client = _default.client
    if client is not None:
        client.close(timeout_s)
        refresh()


def _off() -> Client:
    """A client that does nothing."""
    from callmeter.settings import Settings

    return Client(Settings(disabled=True))


def contained_errors() -> int:
    """How many errors of the SDK itself the host did not see."""
    return CONTAINMENT.contained

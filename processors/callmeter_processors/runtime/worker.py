"""A worker process over Kafka, from the first check to a clean end; called by the command line."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

import faust
from mode.threads import WorkerThread

from callmeter.errors import CallmeterError
from callmeter.log.kafka_admin import check_topics, read_log_id
from callmeter.log.kafka_settings import KafkaSettings
from callmeter_processors.runtime.definitions import Definitions
from callmeter_processors.runtime.exact import Stage
from callmeter_processors.runtime.faust_app import ExactWorker
from callmeter_processors.runtime.kafka_definitions import following
from callmeter_processors.runtime.stats import RuntimeStats
from callmeter_processors.step import StepFactory

logger = logging.getLogger(__name__)
#: How long a worker may be silent before its partitions go to others; brokers allow 6 s and more.
DEFAULT_SESSION_TIMEOUT_S = 6.0
#: How long records are gathered for a checkpoint; see ``runtime.pace`` for what comes after it.
DEFAULT_GATHER_S = 0.1
_THREADS_S = 5.0


def run_worker(
    kafka_url: str,
    factory_maker: Callable[[KafkaSettings], StepFactory],
    *,
    name: str = "meter",
    source: str = "events",
    state: str = "meter-state",
    group: str | None = None,
    checkpoint_s: float = DEFAULT_GATHER_S,
    checkpoint_records: int = 500,
    session_timeout_s: float = DEFAULT_SESSION_TIMEOUT_S,
    accept_loss: bool = False,
    compression: str | None = "zstd",
    stats: RuntimeStats | None = None,
) -> None:
    """Runs one worker until SIGTERM or SIGINT, then returns; raises what made it fail.

    ``factory_maker`` is called once, before anything is read, and may block (price books).
    ``group`` is ``<prefix>.<name>`` by default. ``stats`` is filled while the worker runs and may
    be read from any thread. Installs signal handlers, so it must be called on the main thread;
    configures no logging. ``ConfigError`` if topics are missing, ``UnreachableError`` if Kafka is.
    """
    settings = KafkaSettings.from_url(kafka_url)
    partitions, log_id = asyncio.run(_check(settings))
    factory = factory_maker(settings)
    definitions = Definitions()
    stage = Stage(
        kafka=settings,
        log_id=log_id,
        partitions=partitions,
        name=name,
        source=source,
        state=state,
        accept_loss=accept_loss,
        definitions=definitions,
        compression=compression,
    )

    async def run() -> None:
        worker = ExactWorker(
            stage,
            factory,
            group=group or f"{settings.prefix}.{name}",
            checkpoint_s=checkpoint_s,
            checkpoint_records=checkpoint_records,
            stats=stats or RuntimeStats(),
            session_timeout_s=session_timeout_s,
            loop=asyncio.get_running_loop(),
        )
        async with following(settings, definitions):
            await _run_faust(worker)

    logger.info("%s on %s, log %s, %d partitions", name, settings.display, log_id, partitions)
    asyncio.run(run())


async def _check(settings: KafkaSettings) -> tuple[int, str]:
    return await check_topics(settings), await read_log_id(settings)


async def _run_faust(worker: ExactWorker) -> None:
    service = faust.Worker(
        worker.app,
        loop=asyncio.get_running_loop(),
        override_logging=False,
        redirect_stdouts=False,
        quiet=True,
    )
    service.spinner = None  # it writes to the terminal
    try:
        await service.start()
    finally:
        await service.stop()
        await worker.close()
        await _threads_ended()
    reason = worker.app.crash_reason or service.crash_reason
    if reason is not None:
        if isinstance(reason, CallmeterError):
            raise reason
        raise CallmeterError(f"the worker failed: {reason!r}") from reason


async def _threads_ended() -> None:
    """Faust's consumer thread says goodbye to this loop a moment after the app has stopped."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + _THREADS_S
    while any(isinstance(thread, WorkerThread) for thread in threading.enumerate()):
        if loop.time() > deadline_s:
            logger.warning("Faust's consumer thread did not end within %s s", _THREADS_S)
            return
        await asyncio.sleep(0.02)

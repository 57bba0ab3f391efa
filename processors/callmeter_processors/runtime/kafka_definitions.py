"""Follows the budget definitions on Kafka."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from callmeter.errors import CallmeterError, UnreachableError
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_state import open_partition
from callmeter.schema.topics import BUDGETS
from callmeter_processors.runtime.definitions import POLL_S, Definitions

logger = logging.getLogger(__name__)
_MAX_PAUSE_S = 8.0


async def follow_definitions(
    settings: KafkaSettings, definitions: Definitions, loaded: asyncio.Event
) -> None:
    """Keeps ``definitions`` up to date until it is cancelled; ``loaded`` is set after the first
    reading. A broker that is away is tried again, other errors are raised.
    """
    pause_s = POLL_S
    while True:
        try:
            async with open_partition(settings, BUDGETS.name, 0) as reader:
                seen = -1
                while True:
                    _, end = await reader.offsets()
                    if end != seen:
                        definitions.update(await reader.rows())
                        seen = end
                    loaded.set()
                    pause_s = POLL_S
                    await asyncio.sleep(POLL_S)
        except UnreachableError as exc:
            logger.warning("budget definitions cannot be read: %s", exc)
        except CallmeterError as exc:
            definitions.fail(exc)
            raise
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _MAX_PAUSE_S)


@asynccontextmanager
async def following(settings: KafkaSettings, definitions: Definitions) -> AsyncIterator[None]:
    """``follow_definitions`` beside the body, which begins when they have been read once."""
    loaded = asyncio.Event()
    task = asyncio.create_task(follow_definitions(settings, definitions, loaded))
    waiting = asyncio.create_task(loaded.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield
    finally:
        for each in (task, waiting):
            each.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)

"""The topic registry: names, keys, clean-up and settings (design 5). One place, used by all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_PREFIX = "callmeter"
DEFAULT_PARTITIONS = 32
EMBEDDED_PARTITIONS = 4

_DAY_MS = 86_400_000
_STATE = {
    "cleanup.policy": "compact",
    "segment.bytes": str(64 * 2**20),
    "segment.ms": str(10 * 60_000),
    "min.cleanable.dirty.ratio": "0.1",
}


def _deleted(days: int, **extra: str) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(days * _DAY_MS), **extra}


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. ``partitions`` None means the prefix's N; a number means that many for ever."""

    name: str
    key: str
    carries: str
    config: Mapping[str, str] = field(default_factory=dict)
    partitions: int | None = None

    def full(self, prefix: str = DEFAULT_PREFIX) -> str:
        """The topic's name on the broker: ``<prefix>.<name>``."""
        return f"{prefix}.{self.name}"


_MAX_MESSAGE = {"max.message.bytes": str(4 * 2**20)}

EVENTS = Topic(
    "events",
    "source",
    "envelopes as sent",
    _deleted(7, **{"message.timestamp.type": "LogAppendTime"}, **_MAX_MESSAGE),
)
METERED = Topic(
    "metered",
    "source; same partition as its event",
    "judged and priced envelopes, and the deltas of each checkpoint",
    _deleted(7, **_MAX_MESSAGE),
)
SPEND = Topic("spend", "budget and entity, or project", "spend deltas", _deleted(7))
LIVE = Topic("live", "project", "running windows of each project", {"cleanup.policy": "compact"})
BUDGETS = Topic(
    "budgets", "budget id", "budget definitions, versioned", {"cleanup.policy": "compact"}, 1
)
BUDGET_STATUS = Topic(
    "budget-status",
    "budget and entity",
    "spend, exposure, state, forecast, included offsets",
    {"cleanup.policy": "compact"},
)
ALERTS = Topic("alerts", "rule", "alerts with deterministic ids", _deleted(30))
PRICES = Topic("prices", "book id", "price books", {"cleanup.policy": "compact", **_MAX_MESSAGE}, 1)
LOG = Topic("log", "log id", "the log's id", {"cleanup.policy": "compact"}, 1)
METER_STATE = Topic("meter-state", "row", "state rows and position of the meter", _STATE)
WATCH_STATE = Topic("watch-state", "row", "state rows and position of the watch", _STATE)

TOPICS: tuple[Topic, ...] = (
    EVENTS,
    METERED,
    SPEND,
    LIVE,
    BUDGETS,
    BUDGET_STATUS,
    ALERTS,
    PRICES,
    LOG,
    METER_STATE,
    WATCH_STATE,
)
BY_NAME: Mapping[str, Topic] = {topic.name: topic for topic in TOPICS}

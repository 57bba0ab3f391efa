"""Where a run happens: its task and settings, its times, its dataset."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from callmeter._version import __version__
from callmeter.compat.sygra.repository import UNKNOWN_REPOSITORY

#: Of a run whose task nobody named.
UNKNOWN_TASK = "unknown"
SEVERAL = "multi-source"
TIMESTAMP = "%Y-%m-%d_%H-%M-%S"


def local_now() -> datetime:
    """The local time without its zone, as the document and its file's name show it."""
    return datetime.now(UTC).astimezone().replace(tzinfo=None)


@dataclass(slots=True)
class ExecutionContext:
    """The document's ``execution``. Times are local and naive, as the files' names are."""

    task_name: str = UNKNOWN_TASK
    run_name: str = ""
    output_dir: str | None = None
    batch_size: int = 50
    checkpoint_interval: int = 100
    resumable: bool = False
    debug: bool = False
    start_time: datetime | None = None
    end_time: datetime | None = None
    timestamp: str | None = None
    git: Mapping[str, Any] = field(default_factory=lambda: dict(UNKNOWN_REPOSITORY))

    def to_json(self) -> dict[str, Any]:
        """The block; ``end_time`` and duration are null while the run goes on."""
        start, end = self.start_time, self.end_time
        took = None if start is None or end is None else (end - start).total_seconds()
        return {
            "task_name": self.task_name,
            "run_name": self.run_name,
            "output_dir": self.output_dir,
            "batch_size": self.batch_size,
            "checkpoint_interval": self.checkpoint_interval,
            "resumable": self.resumable,
            "debug": self.debug,
            "timing": {
                "start_time": None if start is None else start.isoformat(),
                "end_time": None if end is None else end.isoformat(),
                "duration_seconds": None if took is None else round(took, 3),
            },
            "environment": {
                "python_version": platform.python_version(),
                "sygra_version": __version__,
            },
            "git": dict(self.git),
        }


@dataclass(slots=True)
class Dataset:
    """The document's ``dataset``. ``sources`` maps an alias to what is known of that source."""

    source_type: str = "unknown"
    source_path: str | None = None
    num_records_processed: int = 0
    start_index: int = 0
    dataset_version: str | None = None
    dataset_hash: str | None = None
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The block; with several sources the type is ``multi-source`` and they are listed."""
        several = len(self.sources) > 1
        block: dict[str, Any] = {
            "source_type": SEVERAL if several else self.source_type,
            "source_path": self.source_path,
            "num_records_processed": self.num_records_processed,
            "start_index": self.start_index,
            "dataset_version": self.dataset_version,
            "dataset_hash": self.dataset_hash,
        }
        if self.sources:
            block["sources"] = {alias: dict(source) for alias, source in self.sources.items()}
        return block

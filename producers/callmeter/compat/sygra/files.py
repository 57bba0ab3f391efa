"""Where a run's files go, and writing them whole or not at all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from callmeter.compat.sygra.execution import ExecutionContext


def output_directory(execution: ExecutionContext) -> Path:
    """The run's ``output_dir``, else ``tasks/<task>`` below the working directory."""
    if execution.output_dir:
        return Path(execution.output_dir)
    parts = [part for part in re.split(r"[/.]+", execution.task_name) if part]
    return Path("tasks", *(parts[1:] if parts[:1] == ["tasks"] else parts))


def metadata_path(execution: ExecutionContext, timestamp: str) -> Path:
    """``<output_dir>/metadata/metadata_<task>_<timestamp>.json``."""
    task = execution.task_name.replace("/", "_").replace(".", "_")
    return output_directory(execution) / "metadata" / f"metadata_{task}_{timestamp}.json"


def write_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """Write UTF-8 JSON, making the directories; ``OSError`` leaves what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with beside.open("w", encoding="utf-8") as file:
            json.dump(value, file, indent=2, ensure_ascii=False, default=str)
        beside.replace(path)
    except BaseException:
        with suppress(OSError):  # it was never made, or the disk has gone
            beside.unlink()
        raise

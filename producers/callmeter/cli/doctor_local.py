"""The doctor's look at this machine: what is installed, a data directory, a spool."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from callmeter._version import __version__
from callmeter.cli.compiled import compiled_parts
from callmeter.cli.doctor_finding import Figure, Finding, State

_EXTRAS = {
    "cli": ("click", "rich"),
    "kafka": ("aiokafka", "cramjam", "zstandard"),
    "collector": ("aiohttp", "zstandard"),
    "prices": ("genai_prices",),
    "processors": ("faust",),
    "sinks": ("clickhouse_connect",),
    "dashboard": ("jinja2", "aiohttp"),
    "embedded": ("chdb",),
    "prometheus": ("prometheus_client",),
}
#: What a live process could not deliver for so long will not go by itself.
_OLD_S = 3600.0


def look_at_installation() -> Iterator[Finding]:
    """The program itself, what of it is compiled, and its extras; a missing one is no fault."""
    guide = "deploy.md#what-to-install"
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("callmeter", State.OK, f"{__version__} on Python {version}", guide)
    compiled, words = compiled_parts()
    yield Finding("compiled", State.OK if compiled else State.NOTICE, words, guide)
    for extra, modules in _EXTRAS.items():
        if not all(map(_is_there, modules)):
            text = f"not installed: pip install 'callmeter[{extra}]'"
            yield Finding(extra, State.UNASKED, text, guide)
        else:
            yield Finding(extra, State.OK, "installed", guide)


def _is_there(module: str) -> bool:
    """Whether it could be imported. One that was imported may have taken its own spec away."""
    return module in sys.modules or importlib.util.find_spec(module) is not None


def look_at_directory(home: Path) -> Finding:
    """The data directory of the embedded form; nothing is made or changed."""
    from callmeter.embedded import LOG_FILE, running
    from callmeter.log.sqlite_log import SqliteLog

    guide = "operations.md#embedded"
    if not (home / LOG_FILE).exists():
        return Finding(
            "directory", State.OK, f"{home}: no data yet; `callmeter up` makes it", guide
        )
    owner = running(home)
    with SqliteLog(home / LOG_FILE) as log:
        ends = sum(log.end_offsets("events").values())
        metered = sum(log.position("meter-state", part) or 0 for part in range(log.partitions))
    waiting = max(0, ends - metered)
    how = f"served at {owner.url} by pid {owner.pid}" if owner else "at rest"
    text = f"{home}: {how}, {ends:,} envelopes in the log, {waiting:,} not yet metered"
    figures = (Figure("group_lag_records", waiting, {"group": "meter"}),)
    return Finding("directory", State.OK, text, guide, figures)


def look_at_spool(root: Path) -> Finding:
    """What producers on this machine could not deliver: bytes, age, and whether its owners live."""
    from callmeter.log.dirlock import DirectoryLock
    from callmeter.schema.envelope import is_uuid

    guide = "operations.md#spool"
    shelves = [p for p in root.iterdir() if p.is_dir() and is_uuid(p.name)] if root.is_dir() else []
    total, oldest, orphaned = 0, time.time(), 0
    for shelf in shelves:
        files = [file.stat() for file in shelf.glob("*.seg")]
        size = sum(file.st_size for file in files)
        total += size
        oldest = min([oldest, *(file.st_mtime for file in files if file.st_size)])
        orphaned += bool(size) and not DirectoryLock(shelf).held_by_another()
    age_s = time.time() - oldest
    figures = (
        Figure("spool_bytes", total),
        Figure("spool_oldest_seconds", age_s),
        Figure("spool_orphaned_sources", orphaned),
    )
    if not total:
        return Finding("spool", State.OK, f"{root}: empty", guide, figures)
    text = f"{root}: {total:,} bytes of {len(shelves)} sources, the oldest {age_s / 60:.0f} min old"
    if orphaned:
        text += f"; {orphaned} have no process: the next one with this spool_dir sends them"
    state = State.NOTICE if orphaned or age_s > _OLD_S else State.OK
    return Finding("spool", state, text, guide, figures)

r"""Phantoms: block ids whose part was never born, dropped before the engine opens a directory.

A non-replicated MergeTree writes a block's id to its deduplication log *before* it renames the
block's part into place. A kill in between leaves an id without a part: the retry of that insert
would be taken for a duplicate, and its rows would be lost (measured: 21 of 28,875 events in 659
kills; none in 842 kills with this repair). See docs/decisions/0006.

Files: ``store/<3>/<uuid>/deduplication_logs/deduplication_log_<n>.txt``, a line per operation:
``1\t<part>\t<block id>`` adds, ``2\t…`` drops an id. A part is a directory of the table named
``<partition>_<min block>_<max block>_<level>[_<mutation>]``, and a merged part covers its blocks.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from callmeter.errors import CannotWriteError

# A partition's id holds no underscore, so a mutated part's fifth number is not taken for its level.
_PART = re.compile(r"(?P<partition>[^_]+)_(?P<first>\d+)_(?P<last>\d+)_(?P<level>\d+)(_\d+)?\Z")
_LOG = re.compile(r"deduplication_log_(\d+)\.txt\Z")
_ADD = b"1"


class Phantom(NamedTuple):
    """A dropped line: the table's directory, the part that is not there, the block id."""

    table: str
    part: str
    block_id: str


def repair(path: Path) -> list[Phantom]:
    """Drop the lines of all deduplication logs under ``path`` whose part no directory covers.

    The caller holds the directory's lock and no engine has it open. Each log is replaced as a whole
    (written beside, fsynced, renamed). ``CannotWriteError`` if a log cannot be read or replaced.
    """
    dropped: list[Phantom] = []
    for logs in sorted(path.glob("store/*/*/deduplication_logs")):
        try:
            dropped += _repair_table(logs)
        except OSError as exc:
            raise CannotWriteError(f"{logs}: {exc.strerror}") from exc
    return dropped


def _repair_table(logs: Path) -> list[Phantom]:
    table = logs.parent
    blocks = _blocks(table)
    dropped: list[Phantom] = []
    for log in sorted(log for log in logs.iterdir() if _LOG.match(log.name)):
        lines = log.read_bytes().split(b"\n")
        kept = []
        for line in lines:
            phantom = _phantom(line, table.name, blocks)
            if phantom is None:
                kept.append(line)
            else:
                dropped.append(phantom)
        if len(kept) != len(lines):
            _replace(log, b"\n".join(kept))
    return dropped


def _blocks(table: Path) -> dict[str, list[tuple[int, int]]]:
    """Ranges of block numbers by partition that the table's parts cover."""
    blocks: dict[str, list[tuple[int, int]]] = {}
    for entry in table.iterdir():
        part = _PART.match(entry.name)
        if part and not entry.name.startswith(("tmp", "delete_tmp")) and entry.is_dir():
            span = (int(part["first"]), int(part["last"]))
            blocks.setdefault(part["partition"], []).append(span)
    return blocks


def _phantom(line: bytes, table: str, blocks: dict[str, list[tuple[int, int]]]) -> Phantom | None:
    fields = line.split(b"\t")
    if not line:
        return None
    if len(fields) != 3:
        # A kill in the middle of the write: the id is not whole, so it can protect nothing.
        return Phantom(table, "", line.decode("utf-8", "replace"))
    if fields[0] != _ADD:
        return None
    name = fields[1].decode("utf-8", "replace")
    part = _PART.match(name)
    if part is None:
        raise CannotWriteError(
            f"{table}: a deduplication log names a part {name!r} of unknown form: this directory "
            "was written by another version of chDB; open it with that version"
        )
    block = int(part["first"])
    if any(low <= block <= high for low, high in blocks.get(part["partition"], ())):
        return None
    return Phantom(table, name, fields[2].decode("utf-8", "replace"))


def _replace(log: Path, content: bytes) -> None:
    beside = log.with_name(f"{log.name}.repair")
    with beside.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(log)
    directory = os.open(log.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

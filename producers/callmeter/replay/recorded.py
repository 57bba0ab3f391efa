"""Reads a ``.jsonl`` file of envelopes and gives each as the exact bytes it was sent as."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from callmeter.errors import DataError
from callmeter.schema.envelope import HEADER_PREFIX, HeaderError, decode_header
from callmeter.transports.protocol import Sealed


def recorded_envelopes(path: Path) -> Iterator[Sealed]:
    """Envelopes in the order of the file.

    ``DataError`` names the line whose header cannot be read. Nothing but the header is judged here;
    the meter is the one judge of lines.
    """
    try:
        with path.open("rb") as file:
            chunk: list[bytes] = []
            start = 1
            for number, line in enumerate(file, start=1):
                if line.startswith(HEADER_PREFIX):
                    if chunk:
                        yield _sealed(path, start, chunk)
                    chunk, start = [line], number
                elif chunk:
                    chunk.append(line)
                else:
                    raise DataError(f'{path}:1: does not begin with a header line ({{"v":…)')
            if chunk:
                yield _sealed(path, start, chunk)
            else:
                raise DataError(f"{path}: is empty")
    except OSError as exc:
        raise DataError(f"{path}: cannot be read: {exc.strerror or exc}") from exc


def _sealed(path: Path, number: int, chunk: list[bytes]) -> Sealed:
    try:
        header = decode_header(chunk[0])
    except HeaderError as exc:
        raise DataError(f"{path}:{number}: {exc}") from exc
    return Sealed(header.source, header.seq, header.n, b"".join(chunk))

"""The command line of the release before: ``python -m support.older_release older GAP_S worker …``.

It is today's code with what that release did not have taken out: its workers write and read state
rows of the format before (docs/decisions/0018), its sinks make a store of schema 3 and move metered
records alone. ``today`` for the first word takes nothing out. Meters tell of a gap after ``GAP_S``.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

#: What rows of a source did not have in format 1.
_LATER = ("beats", "unclean", "skewed", "project", "service")
OLDER_FORMAT = 1
OLDER_SCHEMA = 3


def age() -> None:
    """Make this process one of the release before."""
    from callmeter.schema.topics import METERED
    from callmeter_processors import meter, rows
    from callmeter_sinks import streams
    from callmeter_sinks.clickhouse import migrate

    patched: Any = meter
    encode = rows.encode_row

    def encode_older(*args: Any) -> bytes:
        row: dict[str, Any] = msgspec.json.decode(encode(*args))
        kept = {name: value for name, value in row.items() if name not in _LATER}
        return msgspec.json.encode(kept | {"v": OLDER_FORMAT})

    patched.encode_row = encode_older
    rows.ROW_VERSION = OLDER_FORMAT
    patched = migrate
    older = patched.shipped()[:OLDER_SCHEMA]
    patched.shipped = lambda: older
    streams.STREAMS = {METERED.name: streams.STREAMS[METERED.name]}


def hurry(gap_s: int) -> None:
    """Make meters tell of a gap after so many seconds."""
    from callmeter_processors import meter
    from callmeter_processors.limits import SECOND_US, MeterLimits

    limits = MeterLimits(gap_alert_us=gap_s * SECOND_US)
    make = meter.meter_factory
    patched: Any = meter
    patched.meter_factory = lambda pricer: make(pricer, limits)


def main(release: str, gap_s: str, *arguments: str) -> int:
    from callmeter.cli import main as run

    hurry(int(gap_s))
    if release == "older":
        age()
    return run(list(arguments))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""What is queued of a call that has ended: its values, out of the garbage collector's sight.

A queue of calls would be walked by each collection, on the thread of whoever allocates next: tens
of milliseconds with a full queue, and a quarter of the CPU (docs/decisions/0013).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from callmeter.sdk.context import Labels, Root
    from callmeter.sdk.plain_hot import Anchor


class Ended(msgspec.Struct, gc=False, eq=False):
    """The attributes of a ``Call`` from which its event is made, by the same names.

    It refers to its trace's root and so to the queue that it lies in: a cycle that only draining or
    clearing the queue breaks. ``close`` and a fork do.
    """

    name: str | None
    fields: dict[str, Any]
    later: dict[str, Any] | None
    units: Any
    extra: dict[str, Any] | None
    root: Root | None
    span: int
    parent: int | str | None
    labels: Labels
    anchor: Anchor
    start_ns: int
    end_ns: int

"""Record types of the topic ``spend``: what one checkpoint of a meter adds to budgets and projects.

The contract is docs/reference/formats.md, "Spend". One record holds all lines of a checkpoint for
one partition of ``spend``; where a line goes is ``spend_partition``'s answer.
"""

from __future__ import annotations

from typing import Literal
from zlib import crc32

import msgspec
from msgspec import UNSET, Struct, UnsetType

SPEND_VERSION = 1
#: The key of every record; its partition is always given.
SPEND_KEY = b"spend"


class SpendHeader(Struct, kw_only=True, gc=False):
    """Line 0. ``first`` and ``last`` are offsets of ``events``, both included.

    A partition of ``events`` is included up to ``last`` once part ``parts - 1`` was read.
    """

    v: int = SPEND_VERSION
    type: Literal["spend"] = "spend"
    log: str
    partition: int
    first: int
    last: int
    part: int = 0
    parts: int = 1
    log_ts_us: int


class OpeningHeader(Struct, kw_only=True, gc=False):
    """Line 0 of an opening balance: what a budget had spent in a partition before ``next``.

    ``next`` is the offset of ``events`` from which on the meter counts for ``basis``. It is taken
    once for each (budget, basis, partition, part), however often it is written.
    """

    v: int = SPEND_VERSION
    type: Literal["opening"] = "opening"
    log: str
    partition: int
    next: int
    budget: str
    basis: int
    part: int = 0
    parts: int = 1
    log_ts_us: int


class Spend(Struct, tag_field="kind", tag="spend", kw_only=True, omit_defaults=True, gc=False):
    """What one hour of one entity of a budget gains; ``entity`` "" is the whole budget.

    ``open`` and ``exposure_pico`` are changes of the number of open calls and of their estimates;
    they belong to no hour. Money may be negative.
    """

    budget: str
    basis: int
    window: str
    entity: str = ""
    hour: int = 0
    cost_pico: str = "0"
    tokens: int = 0
    calls: int = 0
    failures: int = 0
    unpriced: int = 0
    usage_unknown: int = 0
    latency_hist: dict[int, int] | UnsetType = UNSET
    open: int = 0
    exposure_pico: str = "0"


class Live(Struct, tag_field="kind", tag="live", kw_only=True, omit_defaults=True, gc=False):
    """What one minute of one model of a project gains, over its other dimensions."""

    project: str
    minute: int
    provider: str = ""
    model: str = ""
    calls: int = 0
    failures: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_pico: str = "0"
    unpriced: int = 0
    usage_unknown: int = 0
    latency_hist: dict[int, int] | UnsetType = UNSET
    open: int = 0


SpendLine = Spend | Live


class _Type(Struct):
    v: int
    type: str


_type = msgspec.json.Decoder(_Type)
_spend = msgspec.json.Decoder(SpendHeader)
_opening = msgspec.json.Decoder(OpeningHeader)
_line: msgspec.json.Decoder[SpendLine] = msgspec.json.Decoder(SpendLine)


def read_spend(value: bytes) -> tuple[SpendHeader | OpeningHeader, list[SpendLine]]:
    """A record's header and lines. ``msgspec.DecodeError`` if it is none."""
    head, _, rest = value.partition(b"\n")
    kind = _type.decode(head).type
    header: SpendHeader | OpeningHeader
    if kind == "spend":
        header = _spend.decode(head)
    elif kind == "opening":
        header = _opening.decode(head)
    else:
        raise msgspec.DecodeError(f"no such type of spend record: {kind[:60]!r}")
    return header, _line.decode_lines(rest)


def spend_partition(name: str, entity: str, partitions: int) -> int:
    """Where the lines of a budget's entity go; a project's with entity "" and its own name.

    CRC-32 and not Kafka's murmur2: the record is placed by number, so no client has to agree, and a
    meter does this for every entity of every checkpoint (docs/decisions/0012).
    """
    return spend_place(spend_placing(name), entity.encode(), partitions)


def spend_placing(name: str) -> int:
    """The part of ``spend_partition`` that a budget's entities have in common."""
    return crc32(f"{name}|".encode())


def spend_place(placing: int, entity: bytes, partitions: int) -> int:
    """The partition of an entity, from what ``spend_placing`` gave for its budget."""
    return crc32(entity, placing) % partitions

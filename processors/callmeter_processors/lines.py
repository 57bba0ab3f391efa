"""The judge of lines: decodes each event, checks what its type cannot say, refuses it alone.

What is handed on was decoded into a record type, and is encoded anew from it: readers behind the
meter see exactly what the judge understood (docs/decisions/0007-the-judge-encodes-anew.md). Fields
that carry free JSON are parsed and written anew for the same reason. Lines of which nothing else
could be understood pass by it: see ``ordinary``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

import msgspec
import orjson
from msgspec import UNSET, Raw

from callmeter.money import wire_to_pico
from callmeter.schema.events import (
    MODEL_OPERATIONS,
    Annotation,
    CallBegin,
    CallEnd,
    Cost,
    Event,
    Experiment,
    Heartbeat,
    InputError,
    Metric,
)
from callmeter.schema.metered import Refused
from callmeter.schema.reasons import RefusedReason
from callmeter_processors.judge import MAX_DETAIL, Refusal
from callmeter_processors.limits import MeterLimits

_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_FIELD = re.compile(r"`\$\.?([^`]*)`")
_HEX = b"0123456789abcdef"
_DASHES = (8, 13, 18, 23)


class LineRefusedError(Exception):
    """A line that decoded and is refused all the same; ``line`` replaces the original text."""

    def __init__(self, reason: RefusedReason, detail: str, line: str | None = None) -> None:
        super().__init__(detail)
        self.refusal = Refusal(reason, detail)
        self.line = line


class _Ids:
    """The ids of some lines, gathered so that one pass checks them all."""

    __slots__ = ("hexes", "uuids")

    def __init__(self) -> None:
        self.uuids: list[str] = []
        self.hexes: list[str] = []

    def good(self) -> bool:
        """Lower-case hex throughout, dashes where a UUID has them. Lengths are the types' care."""
        joined = "".join(self.uuids)
        dashes = "-" * len(self.uuids)
        return (
            all(joined[at::36] == dashes for at in _DASHES)
            and joined.encode().translate(None, _HEX) == b"-" * (4 * len(self.uuids))
            and not "".join(self.hexes).encode().translate(None, _HEX)
        )


class Judged(NamedTuple):
    """What became of some lines: ``events`` has each at its place, ``refused`` those alone."""

    events: list[Event | Refused]
    refused: list[Refused]


def judge_lines(lines: Sequence[bytes], log_ts_us: int, limits: MeterLimits) -> Judged:
    """The events of lines, or why they were refused. The header is not among the lines."""
    fence_us = log_ts_us + limits.future_us
    judged: list[Event | Refused] = []
    ids = _Ids()
    decode, accept = _decoder.decode, judged.append
    uuid, digits = ids.uuids.append, ids.hexes.append
    bad: list[Refused] = []
    for line in lines:
        try:
            event = decode(line)
            # What nearly every line is, and needs: in place, since a function more is felt.
            if (
                type(event) is CallEnd
                and event.ts_us <= fence_us
                and event.started_us <= fence_us
                and event.cost_pico is event.inputs is event.outputs is UNSET
            ):
                # Without a cost there is no source of it, whatever the producer wrote.
                event.cost_source = event.price_version = ""
                uuid(event.call_id)
                digits(event.trace_id)
                if event.parent_span_id is not UNSET:
                    digits(event.parent_span_id)
            else:
                _check(event, fence_us, ids)
            accept(event)
        except LineRefusedError as exc:
            original = _text(line) if exc.line is None else exc.line.encode()
            bad.append(dead_letter(exc.refusal, original, limits))
            accept(bad[-1])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            bad.append(dead_letter(_explain(exc), _text(line), limits))
            accept(bad[-1])
    if not ids.good():
        for i, item in enumerate(judged):
            wrong = None if isinstance(item, Refused) else _bad_id(item)
            if wrong:
                refusal = Refusal(RefusedReason.BAD_VALUE, wrong)
                judged[i] = letter = dead_letter(refusal, _text(lines[i]), limits)
                bad.append(letter)
    return Judged(judged, bad)


def lines_of(envelope: bytes) -> list[bytes]:
    """The lines of an envelope, header first, each with its newline.

    What ``split_lines`` makes in three times the time.
    """
    return BytesIO(envelope).readlines()


def events_of(lines: bytes) -> list[Event]:
    """The events of lines that are known to be good."""
    return _decoder.decode_lines(lines)


def _text(line: bytes) -> bytes:
    return line.removesuffix(b"\n")


def dead_letter(refusal: Refusal, line: bytes, limits: MeterLimits) -> Refused:
    """A dead letter with the beginning of the original text."""
    # A character is at most four bytes: no more of a long line needs decoding.
    text = line[: 4 * limits.dead_letter_chars].decode(errors="replace")
    return Refused(
        refusal.reason.value, refusal.detail[:MAX_DETAIL], text[: limits.dead_letter_chars]
    )


def _check(event: Event, fence_us: int, ids: _Ids) -> None:
    """Refuse what decodes but must not pass, and gather the ids."""
    if event.ts_us > fence_us:
        raise _future("ts_us", event.ts_us, fence_us)
    if isinstance(event, CallEnd):
        if event.started_us > fence_us:
            raise _future("started_us", event.started_us, fence_us)
        if event.cost_pico is not UNSET:
            event.cost_pico = _money("cost_pico", event.cost_pico)
            if event.operation not in MODEL_OPERATIONS:
                raise LineRefusedError(
                    RefusedReason.BAD_VALUE,
                    "field 'cost_pico': only model operations carry cost, not "
                    f"{event.operation[:60]!r}",
                )
        else:
            # Without a cost there is no source of it, whatever the producer wrote.
            event.cost_source = event.price_version = ""
        if event.inputs is not UNSET:
            event.inputs = _free_json("inputs", event.inputs)
        if event.outputs is not UNSET:
            event.outputs = _free_json("outputs", event.outputs)
        ids.uuids.append(event.call_id)
        ids.hexes.append(event.trace_id)
        if event.parent_span_id is not UNSET:
            ids.hexes.append(event.parent_span_id)
    elif not isinstance(event, Metric):
        _check_rare(event, fence_us, ids)


def _check_rare(
    event: CallBegin | Cost | Annotation | Experiment | Heartbeat | InputError,
    fence_us: int,
    ids: _Ids,
) -> None:
    if isinstance(event, CallBegin | Cost) and event.started_us > fence_us:
        raise _future("started_us", event.started_us, fence_us)
    if isinstance(event, CallBegin):
        if event.estimate_pico is not UNSET:
            event.estimate_pico = _money("estimate_pico", event.estimate_pico)
        if event.inputs is not UNSET:
            event.inputs = _free_json("inputs", event.inputs)
    elif isinstance(event, Cost):
        event.cost_pico = _money("cost_pico", event.cost_pico)
    elif isinstance(event, Annotation):
        if event.metadata is not UNSET:
            event.metadata = _free_json("metadata", event.metadata)
    elif isinstance(event, Experiment):
        if event.meta is not UNSET:
            event.meta = _free_json("meta", event.meta)
    elif isinstance(event, InputError):
        # A producer that reads a file set this line aside: the dead letter speaks of the file.
        detail = f"{event.file}:{event.line_number}: {event.detail}"
        raise LineRefusedError(RefusedReason.BAD_INPUT_LINE, detail, event.line)
    for _, text, length in _named_ids(event):
        (ids.uuids if length == 36 else ids.hexes).append(text)


def _named_ids(event: Event) -> list[tuple[str, str, int]]:
    """Every id of an event with its field and the length its type holds it to."""
    found: list[tuple[str, str, int]] = []
    if isinstance(event, CallBegin | CallEnd):
        found.append(("call_id", event.call_id, 36))
        found.append(("trace_id", event.trace_id, 32))
        if event.parent_span_id is not UNSET:
            found.append(("parent_span_id", event.parent_span_id, 16))
    elif isinstance(event, Cost | Annotation):
        if event.call_id is not UNSET:
            found.append(("call_id", event.call_id, 36))
    elif isinstance(event, Heartbeat):
        found.extend(("open_long", text, 36) for text in event.open_long)
    return found


def _bad_id(event: Event) -> str | None:
    for name, text, length in _named_ids(event):
        ids = _Ids()
        (ids.uuids if length == 36 else ids.hexes).append(text)
        if not ids.good():
            what = "a lower-case UUID" if length == 36 else "lower-case hex"
            return f"field {name!r} is not {what}: {text[:60]!r}"
    return None


def _money(name: str, text: str) -> str:
    """Money as canonical text (``-0`` is ``0``)."""
    try:
        return str(wire_to_pico(text))
    except ValueError as exc:
        raise LineRefusedError(RefusedReason.BAD_VALUE, f"field {name!r}: {exc}") from exc


def _free_json(name: str, raw: Raw) -> Raw:
    """Free JSON, parsed and written anew.

    msgspec skips over it without looking: bad UTF-8, numbers no double can hold and deep nesting
    would make readers behind the meter drop the whole line.
    """
    try:
        return Raw(orjson.dumps(orjson.loads(bytes(raw))))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as exc:
        raise LineRefusedError(RefusedReason.BAD_VALUE, f"field {name!r}: {exc}") from exc


def _future(name: str, value_us: int, fence_us: int) -> LineRefusedError:
    ahead_s = (value_us - fence_us) // 1_000_000
    return LineRefusedError(
        RefusedReason.FUTURE, f"field {name!r} is {ahead_s} s past the limit ahead of the log"
    )


def _explain(exc: Exception) -> Refusal:
    """The reason and the field of a decoder's error."""
    text = str(exc)
    if not isinstance(exc, msgspec.ValidationError):
        return Refusal(RefusedReason.BAD_JSON, text)
    if text.startswith("Object missing required field"):
        return Refusal(RefusedReason.MISSING_FIELD, text)
    found = _FIELD.search(text)
    field = found.group(1) if found else ""
    if field == "kind":
        return Refusal(RefusedReason.UNKNOWN_KIND, f"field 'kind': {text}")
    return Refusal(RefusedReason.BAD_VALUE, f"field {field!r}: {text}" if field else text)

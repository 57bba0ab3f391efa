"""Every reason a line, an envelope or an event can be refused or dropped for, in one typed list."""

from __future__ import annotations

from enum import StrEnum


class RefusedReason(StrEnum):
    """Why the meter refused a line or a whole envelope (a dead letter)."""

    BAD_JSON = "bad_json"  # the line does not parse
    UNKNOWN_KIND = "unknown_kind"  # no such event kind
    MISSING_FIELD = "missing_field"  # a required field is absent
    BAD_VALUE = "bad_value"  # a field has the wrong type or is out of range
    FUTURE = "future"  # ahead of its record's log timestamp by more than the limit
    # whole envelopes
    BAD_HEADER = "bad_header"  # line 0 does not parse or lacks a field
    COUNT_MISMATCH = "count_mismatch"  # header n and lines differ
    TOO_LARGE = "too_large"  # over the limit of events or bytes
    TOO_LATE = "too_late"  # sent longer ago than the dedupe horizon
    FUTURE_ENVELOPE = "future_envelope"  # sent_us ahead of the log by more than the limit
    NEWER_FORMAT = "newer_format"  # header v is newer than this meter
    # set aside by a producer that reads a file, on the file's behalf
    BAD_INPUT_LINE = "bad_input_line"


class DropReason(StrEnum):
    """Why an event got no number, or an envelope was given up; counted in headers and stats."""

    QUEUE_FULL = "queue_full"
    TOO_LARGE = "too_large"
    ENCODE_ERROR = "encode_error"
    CLOSED = "closed"
    REFUSED = "refused"  # the backend refused it for good (4xx, record too large)
    SPOOL_FULL = "spool_full"
    SPOOL_EXPIRED = "spool_expired"
    SPOOL_ERROR = "spool_error"
    SHUTDOWN = "shutdown"  # not delivered and not spooled when the process ended
    RETRIES = "retries"  # a facade's retry budget ran out


class Verdict(StrEnum):
    """What the meter made of an envelope."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REFUSED = "refused"

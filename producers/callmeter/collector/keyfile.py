"""The key file: what is kept of each key that ``callmeter keys`` has made, never the key itself.

    {"v": 1, "keys": [{"id", "sha256", "prefix", "name", "projects", "scope", "created_us", …}]}

Written by the command line alone, as a whole and at once, so whoever reads it sees all or nothing
of an edit. When keys were last used stands beside it in ``<file>.used``, which collectors write.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from callmeter.collector.keys import Grant, KeyLimits, digest_of
from callmeter.errors import CannotWriteError, ConfigError, NewerSchemaError, UsageError

FORMAT_VERSION = 1
#: What a key shows of itself: which scope it has, and enough to find it in a list.
PREFIX_CHARS = 9
Scope = Literal["write", "read"]
_MARKS: Mapping[str, str] = {"write": "cmw_", "read": "cmr_"}


class KeyRecord(Struct, omit_defaults=True):
    """One key as it is kept. Times in µs; ``sha256`` in hex."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    prefix: str
    projects: Annotated[list[str], Meta(min_length=1)]
    scope: Scope
    created_us: int
    name: str = ""
    expires_us: int | None = None
    revoked_us: int | None = None
    envelopes_per_s: Annotated[float, Meta(gt=0)] | None = None
    bytes_per_s: Annotated[float, Meta(gt=0)] | None = None
    body_bytes: Annotated[int, Meta(gt=0)] | None = None
    envelope_bytes: Annotated[int, Meta(gt=0)] | None = None

    def state(self, now_us: int) -> Literal["active", "expired", "revoked"]:
        """Whether the key is good."""
        if self.revoked_us is not None:
            return "revoked"
        expired = self.expires_us is not None and self.expires_us <= now_us
        return "expired" if expired else "active"


class KeyFile(Struct):
    """The file's whole content."""

    v: int
    keys: list[KeyRecord]


def read_keys(path: Path) -> list[KeyRecord]:
    """Every key of a file, revoked ones too; none if there is no file.

    ``ConfigError`` for what is no key file; its text shows nothing of the content.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise ConfigError(f"the key file {path} cannot be read: {exc.strerror}") from exc
    try:
        found = msgspec.json.decode(data, type=KeyFile)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ConfigError(f"{path} is no key file of `callmeter keys`") from None
    if found.v > FORMAT_VERSION:
        raise NewerSchemaError(f"the key file {path} is of a newer callmeter: update this one")
    return found.keys


def grants_of(records: Sequence[KeyRecord]) -> dict[bytes, Grant]:
    """What the keys that are not revoked may do, by digest; expiry is judged at each use."""
    return {
        bytes.fromhex(record.sha256): Grant(
            record.id,
            frozenset(record.projects),
            may_write=record.scope == "write",
            may_read=record.scope == "read",
            expires_us=record.expires_us,
            limits=KeyLimits(
                record.envelopes_per_s,
                record.bytes_per_s,
                record.body_bytes,
                record.envelope_bytes,
            ),
        )
        for record in records
        if record.revoked_us is None
    }


def create_key(
    path: Path,
    projects: Sequence[str],
    scope: Scope,
    *,
    now_us: int,
    name: str = "",
    expires_us: int | None = None,
    limits: KeyLimits | None = None,
) -> tuple[str, KeyRecord]:
    """Add a key and return it with its record: 256 random bits, shown this once and never again."""
    key = _MARKS[scope] + secrets.token_urlsafe(32)
    record = KeyRecord(
        id=f"k_{secrets.token_hex(4)}",
        sha256=digest_of(key).hex(),
        prefix=key[:PREFIX_CHARS],
        projects=list(projects),
        scope=scope,
        created_us=now_us,
        name=name,
        expires_us=expires_us,
        **({} if limits is None else asdict(limits)),
    )
    with _edited(path) as records:
        records.append(record)
    return key, record


def revoke_key(path: Path, which: str, *, now_us: int) -> KeyRecord:
    """Revoke the key with this id, prefix or name. ``UsageError`` if it is none or several."""
    with _edited(path) as records:
        found = [r for r in records if which in (r.id, r.prefix, r.name) and r.revoked_us is None]
        if len(found) != 1:
            what = "no such key that is not revoked" if not found else "several keys are called so"
            raise UsageError(f"{what}: give an id of `callmeter keys list`")
        found[0].revoked_us = now_us
    return found[0]


def last_used(path: Path) -> dict[str, int]:
    """When each key was last used (µs), by id; empty while no collector has told."""
    try:
        return msgspec.json.decode(_used_path(path).read_bytes(), type=dict[str, int])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return {}  # a convenience for people: what is lost is told again at the next use


def note_used(path: Path, used_us: Mapping[str, int]) -> None:
    """Merge into what is known; several collectors may write. ``CannotWriteError``."""
    with _locked(_used_path(path)):
        merged = last_used(path)
        for name, moment in used_us.items():
            merged[name] = max(moment, merged.get(name, 0))
        _replace(_used_path(path), msgspec.json.encode(merged))


@contextlib.contextmanager
def _edited(path: Path) -> Iterator[list[KeyRecord]]:
    """The keys to change; written when the block ends without an error."""
    with _locked(path):
        records = read_keys(path)
        yield records
        data = msgspec.json.format(msgspec.json.encode(KeyFile(FORMAT_VERSION, records)))
        _replace(path, data + b"\n")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time, over processes: the file itself is replaced, so a lock lies beside."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise CannotWriteError(f"cannot write {path}: {exc.strerror}") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, data: bytes) -> None:
    """All of the new content or all of the old, whenever the power goes; for the owner's eyes."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as exc:
        raise CannotWriteError(f"cannot write {path}: {exc.strerror}") from exc


def _used_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.used")

"""An embedded data directory as one file, taken at one cut, and put back.

The archive is a tar (``.tar``, or ``.tar.gz`` by its name): ``manifest.json`` first, with the size
and SHA-256 of each file, then ``log.db`` and ``store/``. Log, state and positions are in one SQLite
file, which is copied by SQLite itself; nobody has the directory open meanwhile.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from callmeter._version import __version__
from callmeter.embedded import LOG_FILE, RUNNING_FILE, STORE_DIRECTORY
from callmeter.errors import CannotWriteError, ConfigError, DataError
from callmeter.log.dirlock import DirectoryLock

MANIFEST = "manifest.json"
FORMAT = 1
#: What a directory has for its owner alone.
_LOCKS = ("callmeter.lock", "status", "lock", RUNNING_FILE)
_CHUNK = 1 << 20


class File(msgspec.Struct):
    """One file of the archive."""

    size: int
    sha256: str


class Manifest(msgspec.Struct):
    """What an archive says of itself."""

    callmeter: str
    format: int
    files: dict[str, File]

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files.values())


@contextmanager
def at_rest(directory: Path) -> Iterator[None]:
    """Own a directory, its store too, so that nothing in it changes.

    ``CannotWriteError`` names the pid of whoever has it. The store is repaired as on every opening.
    """
    from callmeter_sinks.clickhouse.lock import OwnedDirectory

    store = OwnedDirectory(directory / STORE_DIRECTORY)
    with DirectoryLock(directory):
        store.acquire()
        try:
            yield
        finally:
            store.release()


def write_archive(
    directory: Path, file: Path, on_bytes: Callable[[int], None] = lambda _: None
) -> Manifest:
    """Write the archive beside ``file`` and rename it into place; the caller holds ``at_rest``."""
    if file.exists():
        raise CannotWriteError(f"{file} exists: give another name, a backup is never overwritten")
    beside = file.with_name(f".{file.name}.part")
    try:
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".callmeter-") as temporary:
            log = Path(temporary) / LOG_FILE
            _copy_log(directory / LOG_FILE, log)
            sources = {LOG_FILE: log, **_files(directory)}
            manifest = Manifest(__version__, FORMAT, {n: _digest(p) for n, p in sources.items()})
            with _opened(beside, file.name) as tar:
                _add_bytes(tar, MANIFEST, msgspec.json.encode(manifest))
                for name, path in sorted(sources.items()):
                    tar.add(path, name, recursive=False)
                    on_bytes(manifest.files[name].size)
                for name, target in _links(directory):
                    link = tarfile.TarInfo(name)
                    link.type, link.linkname = tarfile.SYMTYPE, target
                    tar.addfile(link)
        beside.replace(file)
    except OSError as exc:
        raise CannotWriteError(f"{file}: {exc.strerror or exc}") from exc
    finally:
        beside.unlink(missing_ok=True)
    return manifest


def read_archive(
    file: Path, directory: Path, on_bytes: Callable[[int], None] = lambda _: None
) -> Manifest:
    """Put an archive back as ``directory``, which must not exist or be empty.

    Every file is compared with the manifest first; the directory appears whole or not at all.
    ``DataError`` if the archive is not one of ours or is damaged.
    """
    if directory.exists() and any(directory.iterdir()):
        raise CannotWriteError(
            f"{directory} is not empty: move it away, a restore overwrites nothing"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    whole = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".callmeter-restore-"))
    try:
        with tarfile.open(file) as tar:
            manifest = _manifest(tar, file)
            # Refuses absolute names, names that lead out, links that lead out, and devices.
            tar.extractall(whole, filter="data")
        for name, said in manifest.files.items():
            found = _digest(whole / name) if (whole / name).is_file() else None
            if found != said:
                raise DataError(f"{file.name} is damaged: {name} is not what the backup had")
            on_bytes(said.size)
        (whole / MANIFEST).unlink()
        if directory.exists():
            directory.rmdir()
        whole.replace(directory)
    except (tarfile.TarError, EOFError) as exc:
        raise DataError(f"{file.name}: {exc}") from exc
    except OSError as exc:
        raise CannotWriteError(f"{exc.filename or directory}: {exc.strerror or exc}") from exc
    finally:
        shutil.rmtree(whole, ignore_errors=True)  # nothing is there if it became the directory
    return manifest


def _opened(path: Path, name: str) -> tarfile.TarFile:
    if name.endswith((".gz", ".tgz")):
        return tarfile.open(path, "w:gz", compresslevel=6)
    return tarfile.open(path, "w")


def _manifest(tar: tarfile.TarFile, file: Path) -> Manifest:
    first = tar.next()
    stream = tar.extractfile(first) if first is not None and first.name == MANIFEST else None
    if stream is None:
        raise DataError(f"{file.name} is not a backup of callmeter: it begins without a manifest")
    try:
        manifest = msgspec.json.decode(stream.read(), type=Manifest)
    except msgspec.MsgspecError as exc:
        raise DataError(f"{file.name}: its manifest cannot be read: {exc}") from exc
    if manifest.format > FORMAT:
        raise DataError(f"{file.name} was written by callmeter {manifest.callmeter}: upgrade first")
    return manifest


def _copy_log(source: Path, target: Path) -> None:
    if not source.is_file():
        raise ConfigError(f"{source.parent} has no log: is it a data directory?")
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=rw", uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
    except sqlite3.Error as exc:
        raise CannotWriteError(f"{source}: {exc}") from exc


def _files(directory: Path) -> dict[str, Path]:
    """Everything but the log, the locks and links, by its name in the archive."""
    found = {}
    for path in directory.rglob("*"):
        name = path.relative_to(directory).as_posix()
        if name.startswith(LOG_FILE) or path.name in _LOCKS:
            continue
        if path.is_file() and not path.is_symlink():
            found[name] = path
    return found


def _links(directory: Path) -> Iterator[tuple[str, str]]:
    """The engine's links from a table's name to its data, which lead from one place to another."""
    for path in directory.rglob("*"):
        if path.is_symlink():
            yield path.relative_to(directory).as_posix(), str(path.readlink())


def _digest(path: Path) -> File:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
        return File(os.fstat(stream.fileno()).st_size, digest.hexdigest())


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))

"""The jars of a real Apache Kafka, fetched once by Maven and kept beside their list.

``deploy/kafka`` of a checkout is a Kafka *home*: ``pom.xml`` lists the jars, ``libs/`` receives
them (46 files, 43 MB), ``server.properties`` is the template the launcher fills in. Needs Java 17
and Maven on PATH.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from callmeter.errors import ConfigError, UnreachableError

_COMPLETE = ".complete"
_FETCH_TIMEOUT_S = 600.0


def kafka_home() -> Path:
    """``CALLMETER_KAFKA_HOME``, else ``deploy/kafka`` of the checkout; ``ConfigError`` without."""
    told = os.environ.get("CALLMETER_KAFKA_HOME")
    home = Path(told) if told else Path(__file__).resolve().parents[3] / "deploy" / "kafka"
    if not (home / "pom.xml").is_file():
        raise ConfigError(
            f"no Kafka to start: {home} holds no pom.xml; run from a checkout of callmeter or set "
            "CALLMETER_KAFKA_HOME to its deploy/kafka"
        )
    return home


def missing_tools(home: Path) -> str | None:
    """What keeps a Kafka from running here, in one line, or None. Maven counts until the fetch."""
    if shutil.which("java") is None:
        return "java is not installed (Java 17)"
    if not _is_complete(home) and shutil.which("mvn") is None:
        return "mvn is not installed (Maven fetches Kafka's jars)"
    return None


def fetch_jars(home: Path) -> Path:
    """The directory with the jars, fetched now if they are not there or the list has changed.

    Several processes may ask at once: one fetches, the others wait for it. A fetch that was
    interrupted is not complete and is done again. ``ConfigError`` without Maven,
    ``UnreachableError`` with Maven's own last lines if it fails.
    """
    libs = home / "libs"
    if _is_complete(home):
        return libs
    if shutil.which("mvn") is None:
        raise ConfigError("mvn is not installed: Maven fetches Kafka's jars (apt install maven)")
    libs.mkdir(parents=True, exist_ok=True)
    with (libs / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_complete(home):
            _run_maven(home, libs)
            (libs / _COMPLETE).write_text(_digest(home))
    return libs


def _run_maven(home: Path, libs: Path) -> None:
    # A jar of an earlier list beside a new one would be on the class path twice.
    for old in (*libs.glob("*.jar"), *libs.glob("*.jsa")):
        old.unlink()
    command = ["mvn", "-q", "-B", "-f", str(home / "pom.xml"), "dependency:copy-dependencies"]
    command.append(f"-DoutputDirectory={libs.resolve()}")
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_FETCH_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise UnreachableError(f"mvn did not end within {_FETCH_TIMEOUT_S:.0f} s") from exc
    if done.returncode != 0:
        tail = "\n".join(done.stdout.strip().splitlines()[-8:])
        raise UnreachableError(f"mvn could not fetch Kafka's jars:\n{tail}")


def _is_complete(home: Path) -> bool:
    marker = home / "libs" / _COMPLETE
    return marker.is_file() and marker.read_text() == _digest(home)


def _digest(home: Path) -> str:
    return hashlib.sha256((home / "pom.xml").read_bytes()).hexdigest()

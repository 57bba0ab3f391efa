"""One real Apache Kafka on loopback, started and stopped by this process: for tests and the demo.

Broker and controller in one JVM (KRaft), up in a few seconds. It dies with the process that started
it, however that one ends: a watcher outside the JVM waits on a pipe that only its parent holds.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import string
import struct
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from callmeter.errors import ConfigError, UnreachableError
from callmeter.log.kafka_jars import fetch_jars, kafka_home, missing_tools

#: Below Linux's ephemeral ports, so that no client takes the port while a killed broker is away.
_PORTS = range(20_000, 32_000)
_POLL_S = 0.05
_TAIL_LINES = 20
_JVM = (
    "-Xmx1g",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
)
_LASTING = ("-XX:+UseG1GC",)
# Half of a broker's start is the work of the second compiler, which pays only after minutes.
_QUICK = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
#: Beside the jars, where ``kafka_archive`` has written it.
ARCHIVE_FILE = "classes.jsa"
# `read` returns when the last writer of the pipe is gone; $1 is the JVM.
_WATCHER = 'read -r _; kill -9 "$1" 2>/dev/null'


class KafkaServer:
    """A broker whose data live in ``directory``; the same directory again is the same cluster.

    ``port`` (client listener) is chosen once if not given and kept over ``restart``.
    ``properties`` are laid over the template, so a caller can add a SASL listener or shorten a
    limit. A ``quick`` one starts in half of the time and never gets as fast: for a short life.
    ``options`` are the JVM's. Not thread-safe; use as a context manager or call ``stop``.

        with KafkaServer(tmp_path) as kafka:
            Producer({"bootstrap.servers": kafka.bootstrap})
    """

    def __init__(
        self,
        directory: Path | str,
        port: int | None = None,
        *,
        properties: Mapping[str, str] | None = None,
        home: Path | None = None,
        quick: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        self.directory = Path(directory).resolve()
        self.home = home or kafka_home()
        self._port = port
        self._controller_port: int | None = None
        self._properties = dict(properties or {})
        self._quick = quick
        self._options = (*_JVM, *(_QUICK if quick else _LASTING), *options)
        self._jvm: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """Of the client listener; known after the first ``start``."""
        if self._port is None:
            raise ConfigError("this Kafka has no port before start()")
        return self._port

    @property
    def bootstrap(self) -> str:
        """``host:port``, as Kafka clients want it."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The same as callmeter's URL, ``kafka://host:port``."""
        return f"kafka://{self.bootstrap}"

    @property
    def pid(self) -> int | None:
        """Process id of the JVM while it runs."""
        return self._jvm.pid if self._jvm is not None and self._jvm.poll() is None else None

    @property
    def log_file(self) -> Path:
        """What the JVM printed, over all starts."""
        return self.directory / "kafka.log"

    def start(self, timeout_s: float = 60.0) -> None:
        """Format the directory if it is new, start, return when the broker serves requests.

        ``ConfigError`` without Java; ``UnreachableError`` with the end of Kafka's log if it ends or
        is not ready in time (it is killed then). A running broker is left alone.
        """
        if self.pid is not None:
            return
        lacking = missing_tools(self.home)
        if lacking is not None:
            raise ConfigError(f"cannot start a Kafka: {lacking}")
        libs = fetch_jars(self.home)
        classpath = f"{libs}/*"
        deadline = time.monotonic() + timeout_s
        self.directory.mkdir(parents=True, exist_ok=True)
        settings = self._write_settings()
        self._format(classpath, settings, timeout_s)
        archive = libs / ARCHIVE_FILE
        shared = [f"-XX:SharedArchiveFile={archive}"] if self._quick and archive.exists() else []
        self._spawn(
            ["java", *shared, *self._options, "-cp", classpath, "kafka.Kafka", str(settings)]
        )
        self._wait_ready(deadline)

    def kill(self) -> None:
        """SIGKILL and reap: the crash that a test wants. Harmless if it does not run."""
        if self._jvm is not None:
            self._jvm.kill()
            self._jvm.wait()
            self._dismiss_watcher()

    def restart(self, timeout_s: float = 60.0) -> None:
        """Start again on the same ports and data, after ``kill`` or a clean ``stop``."""
        self.stop()
        self.start(timeout_s)

    def stop(self, timeout_s: float = 20.0) -> None:
        """SIGTERM, and SIGKILL after ``timeout_s``. Harmless if it does not run."""
        if self._jvm is None or self._jvm.poll() is not None:
            self.kill()
            return
        self._jvm.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):  # kill() below is the answer to it
            self._jvm.wait(timeout_s)
        self.kill()

    def pause(self) -> None:
        """SIGSTOP: alive, bound to its port, and silent from the return on."""
        self._signal(signal.SIGSTOP)
        while self.pid is not None and not _all_stopped(self.pid):
            time.sleep(0.005)  # another thread of it may be in the middle of an answer

    def resume(self) -> None:
        """SIGCONT after ``pause``."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is None:
            raise UnreachableError("this Kafka does not run")
        os.kill(pid, number)

    def _write_settings(self) -> Path:
        if self._port is None:
            self._port = free_port()
        if self._controller_port is None:
            self._controller_port = free_port(but=self._port)
        template = string.Template((self.home / "server.properties").read_text())
        text = template.substitute(
            port=self._port, controller_port=self._controller_port, data=self.directory / "data"
        )
        # The last of several lines with one key wins in Java's properties.
        text += "".join(f"{key}={value}\n" for key, value in self._properties.items())
        path = self.directory / "server.properties"
        path.write_text(text)
        return path

    def _format(self, classpath: str, settings: Path, timeout_s: float) -> None:
        if (self.directory / "data" / "meta.properties").exists():
            return
        # Kafka refuses a cluster id that begins with `-`; hex digits never do.
        command = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", classpath]
        command += ["kafka.tools.StorageTool", "format", "-t", uuid.uuid4().hex[:22]]
        with self.log_file.open("ab") as log:
            done = subprocess.run(
                [*command, "-c", str(settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
        if done.returncode != 0:
            raise UnreachableError(f"Kafka's storage could not be formatted:\n{self._tail()}")

    def _spawn(self, command: list[str]) -> None:
        # A session of its own: Ctrl-C in a terminal reaches the parent, which stops us in order.
        with self.log_file.open("ab") as log:
            self._jvm = subprocess.Popen(
                command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._watcher = subprocess.Popen(
            ["sh", "-c", _WATCHER, "callmeter-kafka-watcher", str(self._jvm.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _dismiss_watcher(self) -> None:
        # Killed before its pipe closes, so that it never signals a process id that was used again.
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.wait()
            _close(self._watcher.stdin)
            self._watcher = None

    def _wait_ready(self, deadline: float) -> None:
        while not serves_metadata(self.port):
            if self.pid is None:
                code = None if self._jvm is None else self._jvm.returncode
                self.kill()
                raise UnreachableError(f"Kafka ended with {code} while starting:\n{self._tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise UnreachableError(f"Kafka was not ready in time:\n{self._tail()}")
            time.sleep(_POLL_S)

    def _tail(self) -> str:
        lines = self.log_file.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:]) or "(its log is empty)"


def free_port(but: int | None = None) -> int:
    """A loopback port that nobody is bound to now, outside the range of outgoing connections."""
    for port in random.sample(_PORTS, 200):
        if port == but:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # taken: try the next
                probe.bind(("127.0.0.1", port))
                return port
    raise UnreachableError("no free port between 20000 and 32000")


def serves_metadata(port: int) -> bool:
    """Whether a broker answers Metadata (version 1) on the port and lists a live broker.

    An open port is not enough: Kafka binds it seconds before it serves, and lists itself only once
    the controller has admitted it.
    """
    # api key 3, version 1, correlation id, null client id, no topics
    request = struct.pack(">hhihi", 3, 1, 7, -1, 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as conn:
            conn.sendall(struct.pack(">i", len(request)) + request)
            with conn.makefile("rb") as stream:
                answer = stream.read(12)
    except OSError:
        return False
    if len(answer) < 12:
        return False
    _, correlation_id, brokers = struct.unpack(">iii", answer)
    return bool(correlation_id == 7 and brokers > 0)


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        stream.close()


def _all_stopped(pid: int) -> bool:
    """Whether every thread of a process is stopped (or gone); also where there is no /proc."""
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(_state(stat) in "TtZX" for stat in threads)


def _state(stat: Path) -> str:
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except OSError:  # the thread has ended meanwhile
        return "X"

"""Every process of a pipeline over Kafka: killed, stopped and woken, and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from support.cli import environment

TESTS = Path(__file__).resolve().parents[1]
#: A supervisor waits a moment: a process that finds no Kafka would be started without end.
_AGAIN_S = 1.0


class Fleet:
    """``commands`` maps a name to what follows ``python -m``; all of them, or those that are named
    ``at_first``, run from entry to exit.

    What ends by itself is started again, as a supervisor would; ``ended_themselves`` counts that.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        home: Path,
        at_first: Sequence[str] | None = None,
    ) -> None:
        self._commands = commands
        self._at_first = tuple(commands) if at_first is None else at_first
        self._home = home
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._paused: dict[str, float] = {}
        #: When what has ended by itself is started again.
        self._due: dict[str, float] = {}
        self.ended_themselves = 0

    def names(self, kind: str) -> list[str]:
        """Those of a kind that run now: neither stopped nor ended."""
        return [
            name
            for name, process in self._processes.items()
            if name.startswith(kind) and name not in self._paused and process.poll() is None
        ]

    def start(self, name: str) -> None:
        self._due.pop(name, None)
        with self.log_of(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", *self._commands[name]],
                stdout=log,
                stderr=log,
                env=environment(PYTHONPATH=str(TESTS)),
            )

    def log_of(self, name: str) -> Path:
        return self._home / f"{name}.log"

    def said(self) -> str:
        """The end of what each process said, for a failure's message."""
        return "\n".join(
            f"--- {name}\n{self.log_of(name).read_text(errors='replace')[-1500:]}"
            for name in self._commands
            if self.log_of(name).exists()
        )

    def kill(self, name: str) -> None:
        """SIGKILL, and start again."""
        self._processes[name].kill()
        self._processes[name].wait()
        self.start(name)

    def remove(self, name: str) -> None:
        """SIGKILL, for good."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def wait(self, name: str, patience_s: float = 90) -> int:
        """The exit code of one that ends by itself, and is not started again."""
        return self._processes.pop(name).wait(patience_s)

    def pause(self, name: str, seconds: float) -> None:
        """SIGSTOP; ``supervise`` wakes it when the time is over."""
        self._processes[name].send_signal(signal.SIGSTOP)
        self._paused[name] = time.monotonic() + seconds

    def supervise(self, *, wake_all: bool = False) -> None:
        """Wake what has slept long enough, start again what has ended."""
        for name, until_s in list(self._paused.items()):
            if wake_all or time.monotonic() >= until_s:
                self._processes[name].send_signal(signal.SIGCONT)
                del self._paused[name]
        now_s = time.monotonic()
        for name, process in self._processes.items():
            if process.poll() is None:
                continue
            if name not in self._due:
                self.ended_themselves += 1
                self._due[name] = now_s + _AGAIN_S
            elif now_s >= self._due[name]:
                self.start(name)

    def until(
        self, holds: Callable[[], object], what: Callable[[], str], patience_s: float = 120
    ) -> None:
        """Supervise until it holds; the failure says ``what`` does not, and all the logs."""
        deadline_s = time.monotonic() + patience_s
        while not holds():
            self.supervise()
            assert time.monotonic() < deadline_s, f"{what()}\n{self.said()}"
            time.sleep(0.1)

    def stop(self, *names: str, patience_s: float = 60) -> None:
        """SIGTERM, and each ends well; one that has just been started may not have heard of it."""
        for name in names:
            self._processes[name].send_signal(signal.SIGTERM)
        for name in names:
            code = self._processes.pop(name).wait(patience_s)
            assert code in (0, -signal.SIGTERM), f"{name} ended with {code}: {self.said()}"

    def drain(self, name: str) -> None:
        """Run a sink's command once more, to the end of the log as it is now."""
        done = subprocess.run(
            [sys.executable, "-m", *self._commands[name], "--drain"],
            env=environment(), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + self.said()

    def __enter__(self) -> Self:
        for name in self._at_first:
            self.start(name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                os.kill(process.pid, signal.SIGCONT)
                process.kill()
            process.wait()

"""A sink process that is aimed at: what it says decides when a signal hits it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_PROGRAM = Path(__file__).with_name("sink_process.py")
_PATIENCE_S = 60.0


@dataclass
class _Aim:
    mark: str
    skip: int
    delay_s: float
    act: Callable[[], None]
    hit: threading.Event = field(default_factory=threading.Event)


class TalkingSink:
    """``sink_process.py`` with a reader of its marks. ``said`` are all lines so far."""

    def __init__(self, log: str, store: str, *options: str) -> None:
        self.said: list[str] = []
        self._aim: _Aim | None = None
        self._lock = threading.Lock()
        self.process = subprocess.Popen(
            [sys.executable, str(_PROGRAM), log, store, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._listen, daemon=True),
            threading.Thread(target=self._keep_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def at(
        self, mark: str, act: Callable[[], None], *, skip: int = 0, delay_s: float = 0.0
    ) -> None:
        """Do something ``delay_s`` after the process says ``mark`` for the (skip + 1)-th time.

        Returns when it was done; fails if the process ends before, or says nothing for long.
        """
        aim = _Aim(mark, skip, delay_s, act)
        with self._lock:
            self._aim = aim
        waited_s = 0.0
        while not aim.hit.wait(0.2):
            waited_s += 0.2
            assert self.process.poll() is None, self.errors
            assert waited_s < _PATIENCE_S, f"never said {mark}: {self.said[-5:]}\n{self.errors}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Kill it, if it still runs, and let go of its pipes."""
        self.kill()
        for reader in self._readers:
            reader.join(_PATIENCE_S)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()

    def end(self, patience_s: float = _PATIENCE_S) -> int:
        """Wait for its end: the exit code."""
        code = self.process.wait(patience_s)
        for reader in self._readers:
            reader.join(_PATIENCE_S)
        return code

    @property
    def errors(self) -> str:
        return "".join(self._errors[-30:])

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word = line.strip()
            self.said.append(word)
            with self._lock:
                aim = self._aim
            if aim is None or not word.startswith(aim.mark):
                continue
            if aim.skip:
                aim.skip -= 1
                continue
            with self._lock:
                self._aim = None
            if aim.delay_s:
                threading.Timer(aim.delay_s, self._do, [aim]).start()
            else:
                self._do(aim)

    def _do(self, aim: _Aim) -> None:
        try:
            aim.act()
        finally:
            aim.hit.set()

    def _keep_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._errors.append(line)

"""Environments of their own for libraries that cannot live beside ours, from ``tests/locks``.

Made once beside the packages of this interpreter and named by the lock's hash, so a second run
finds it. ``CALLMETER_REQUIRE_KAFKA=1``, as in CI, turns "cannot be made" into a failure.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.kafka_server import required

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "tests" / "locks"
HOME = Path(sys.prefix) / "locked"
#: An index that answers slowly is waited for; one that does not answer is an error.
MAKING_S = 240.0


class CannotMakeError(Exception):
    """The environment cannot be made here; the message says why."""


def locked_python(name: str) -> Path:
    """The interpreter of the environment that ``tests/locks/<name>.lock`` describes.

    Skips the asking test (in CI: fails it) if it cannot be made.
    """
    try:
        return _made(name)
    except CannotMakeError as exc:
        text = f"needs an environment with {name}: {exc}"
        if required():
            pytest.fail(f"{text} (CALLMETER_REQUIRE_KAFKA is set)", pytrace=False)
        pytest.skip(text)


def _made(name: str) -> Path:
    lock = LOCKS / f"{name}.lock"
    home = HOME / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    python, whole = home / "bin" / "python", home / ".whole"
    HOME.mkdir(exist_ok=True)
    with (HOME / f".{name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # several test processes may ask at once
        if not whole.exists():
            for old in HOME.glob(f"{name}-*"):
                shutil.rmtree(old)
            uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
            if uv is None:
                raise CannotMakeError("uv is not there: make install")
            _run(uv, "venv", "-q", "--clear", "--python", sys.executable, home)
            _run(uv, "pip", "install", "-q", "--python", python, "--require-hashes", "-r", lock)
            whole.touch()
    return python


def _run(*command: str | Path) -> None:
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, check=False, capture_output=True, text=True, timeout=MAKING_S,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CannotMakeError(f"uv did not end within {MAKING_S:.0f} s") from None
    if done.returncode:
        raise CannotMakeError("; ".join(done.stderr.strip().splitlines()[-2:]))

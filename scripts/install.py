#!/usr/bin/env python3
"""Make ``.venv`` with the locked packages and this checkout, editable. Needs Python 3.11+ only.

    scripts/install.py                       everything: all extras and the development tools
    scripts/install.py --extras embedded     what these extras need, at the locked versions

Every package is checked against its hash in ``requirements.lock``. uv does the work: the one on
PATH, else the locked one, which pip brings (docs/decisions/0001). If uv cannot be had, pip installs
the whole lock, slowly.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
OLDEST = (3, 11)
_BUILD_BACKEND = ("hatchling", "editables", "cython")


def run(*command: str | Path) -> None:
    """Run to its end; ``CalledProcessError`` if it fails."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        check=True,
    )


def uv_on_path() -> str | None:
    """A uv that runs: a shim may be on PATH whose uv is not there."""
    found = shutil.which("uv")
    if found is None:
        return None
    tried = subprocess.run([found, "--version"], capture_output=True, check=False)
    return found if tried.returncode == 0 else None


def locked(name: str) -> str:
    """The lines of the lock that pin one package with its hashes."""
    wanted: list[str] = []
    for line in LOCK.read_text().splitlines():
        if line.startswith(f"{name}==") or (wanted and line.startswith(" ")):
            wanted.append(line)
        elif wanted:
            break
    if not wanted:
        raise SystemExit(f"requirements.lock does not pin {name}: make lock")
    return "\n".join(wanted) + "\n"


def make_venv(venv: Path, uv: str | None) -> None:
    """A venv of this interpreter, left alone if there is one that works."""
    python = venv / "bin" / "python"
    if python.exists() and subprocess.run([python, "-c", ""], check=False).returncode == 0:
        return
    if uv is not None:
        run(uv, "venv", "-q", "--clear", "--python", sys.executable, venv)
    else:
        run(sys.executable, "-m", "venv", "--clear", venv)


def bring_uv(venv: Path) -> str | None:
    """The locked uv, installed by pip into the venv; None where it has no wheel."""
    python = venv / "bin" / "python"
    if subprocess.run([python, "-m", "pip", "-V"], capture_output=True, check=False).returncode:
        run(python, "-m", "ensurepip", "-q")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write(locked("uv"))
        wanted.flush()
        try:
            run(python, "-m", "pip", "install", "-q", "--require-hashes", "-r", wanted.name)
        except subprocess.CalledProcessError:
            return None
    return str(venv / "bin" / "uv")


def install(venv: Path, uv: str | None, extras: str | None) -> None:
    """Locked packages first, then this checkout without another look at its dependencies."""
    python = venv / "bin" / "python"
    if uv is None:
        run(python, "-m", "pip", "install", "-q", "--no-compile", "--require-hashes", "-r", LOCK)
        editable = ("--no-deps", "--no-build-isolation", "-e", ".")
        run(python, "-m", "pip", "install", "-q", *editable)
        return
    pip = (uv, "pip", "install", "-q", "--python", python)
    if extras is None:
        run(*pip, "--require-hashes", "-r", LOCK)
        run(*pip, "--no-deps", "--no-build-isolation", "-e", ".")
    else:
        run(*pip, "-c", LOCK, *_BUILD_BACKEND)
        run(*pip, "-c", LOCK, "--no-build-isolation", "-e", f".[{extras}]")


def is_compiled(venv: Path) -> bool:
    """Whether all is that can be: what a build says of it, pip and uv keep to themselves."""
    look = "from callmeter.cli.compiled import compiled_parts; print(compiled_parts()[0])"
    python = venv / "bin" / "python"
    found = subprocess.run([python, "-c", look], capture_output=True, text=True, check=True)
    return found.stdout.strip() == "True"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--extras", help="names of extras, comma-separated; none: everything")
    options = parser.parse_args()
    if sys.version_info < OLDEST:
        print(f"callmeter needs Python 3.11 or newer, this is {sys.version.split()[0]}")
        return 78
    began = time.monotonic()
    venv = options.venv.resolve()
    uv = uv_on_path()
    make_venv(venv, uv)
    uv = uv or bring_uv(venv)
    print(f"installing {options.extras or 'everything'} into {venv.name} with {uv or 'pip'}")
    install(venv, uv, options.extras)
    print(f"installed in {time.monotonic() - began:.1f} s")
    if not is_compiled(venv):
        print("no compiled code: a slower meter, slower calls (CONTRIBUTING.md, Compiled code)")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        print(f"failed ({error.returncode}): {' '.join(error.cmd)}", file=sys.stderr)
        sys.exit(69)

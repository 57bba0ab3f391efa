#!/usr/bin/env python3
"""Bring helm, prometheus and promtool into ``.venv/ops/bin``, where they are not on PATH.

    scripts/ops_tools.py            install what is missing, print where each tool is

helm comes out of a locked wheel (``deploy/helm/helm.lock``, 37 MB; Linux on x86-64), Prometheus out
of Debian's package (19 MB, unpacked and not installed: nothing is started). Why these:
docs/decisions/0020-deployment-proven-by-real-tools.md. Several processes may run it at once.
"""

from __future__ import annotations

import fcntl
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = Path(os.environ.get("CALLMETER_OPS_TOOLS", ROOT / ".venv" / "ops"))
HELM_LOCK = ROOT / "deploy" / "helm" / "helm.lock"
TOOLS = ("helm", "prometheus", "promtool")
_FETCH_S = 300.0


class CannotInstallError(Exception):
    """A tool cannot be had on this machine; the message says what to install by hand."""


def find(name: str) -> Path | None:
    """The tool on PATH, else the one that was brought; None without either."""
    found = shutil.which(name) or shutil.which(name, path=str(HOME / "bin"))
    return Path(found) if found else None


def bring(name: str) -> Path:
    """The tool, installed now if it is missing. ``CannotInstallError`` says why it cannot be."""
    if (there := find(name)) is not None:
        return there
    (HOME / "bin").mkdir(parents=True, exist_ok=True)
    with (HOME / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (there := find(name)) is not None:
            return there
        _helm() if name == "helm" else _prometheus()
    there = find(name)
    if there is None:
        raise CannotInstallError(f"{name} was not in the package it should be in")
    return there


def _helm() -> None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise CannotInstallError("helm is not on PATH: install Helm 3.14 or newer")
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        raise CannotInstallError("uv is not there: make install")
    with tempfile.TemporaryDirectory() as folder:
        wanted = ("--no-deps", "--require-hashes", "-r", HELM_LOCK)
        _run(uv, "pip", "install", "-q", "--python", sys.executable, "--target", folder, *wanted)
        (archive,) = Path(folder).glob("aws_cdk/*/_jsii/*.tgz")
        with tarfile.open(archive) as layers:
            layer = layers.extractfile("package/lib/layer.zip")
            if layer is None:
                raise CannotInstallError("the locked wheel holds no layer.zip")
            binary = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
    _place("helm", binary)


def _prometheus() -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise CannotInstallError(
            "prometheus and promtool are not on PATH: install Prometheus 2.40+"
        )
    with tempfile.TemporaryDirectory() as folder:
        try:
            _run("apt-get", "-q", "download", "prometheus", cwd=folder)
        except CannotInstallError:
            _run("apt-get", "-q", "update")  # lists may be missing or old
            _run("apt-get", "-q", "download", "prometheus", cwd=folder)
        (package,) = Path(folder).glob("prometheus_*.deb")
        _run("dpkg-deb", "-x", str(package), f"{folder}/root")
        for name in ("prometheus", "promtool"):
            _place(name, (Path(folder) / "root/usr/bin" / name).read_bytes())


def _place(name: str, binary: bytes) -> None:
    """Whole or not at all: whoever sees the file may run it."""
    half = HOME / "bin" / f".{name}.{os.getpid()}"
    half.write_bytes(binary)
    half.chmod(0o755)
    half.rename(HOME / "bin" / name)


def _run(*command: str | Path, cwd: str | None = None) -> None:
    words: Sequence[str] = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, cwd=cwd, check=False, capture_output=True, text=True, timeout=_FETCH_S,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CannotInstallError(f"{words[0]} did not end within {_FETCH_S:.0f} s") from None
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise CannotInstallError(f"{words[0]} {words[1]}: {''.join(last)}")


def main() -> int:
    for name in TOOLS:
        try:
            print(f"{name:<11} {bring(name)}")
        except CannotInstallError as exc:
            print(f"{name:<11} cannot be had: {exc}", file=sys.stderr)
            return 69
    return 0


if __name__ == "__main__":
    sys.exit(main())

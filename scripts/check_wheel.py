#!/usr/bin/env python3
"""Build wheel and sdist, check what is in them, and use the wheel in an empty environment.

Checked: every file of the three packages is in the wheel and nothing else is; the licence travels
along; a bare install brings at most four distributions, imports light, and answers ``callmeter``
with the exact install that is missing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "callmeter": "producers",
    "callmeter_processors": "processors",
    "callmeter_sinks": "sinks",
}
DATA = "examples/data"
HEAVY = ("aiokafka", "faust", "clickhouse_connect", "aiohttp", "chdb", "click", "rich")
MOST_DISTRIBUTIONS = 4
EXIT_CONFIG = 78


def run(*command: str | Path, **options: bool) -> subprocess.CompletedProcess[str]:
    """Run from an empty directory, so that nothing of the checkout is importable by accident."""
    with tempfile.TemporaryDirectory() as elsewhere:
        return subprocess.run(
            [str(part) for part in command],
            cwd=elsewhere,
            stdin=subprocess.DEVNULL,
            text=True,
            check=options.get("check", True),
            capture_output=options.get("capture", False),
        )


def build() -> Path:
    """The wheel, built from the sdist, as an installer from source would."""
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, ROOT)
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    print(f"{wheel.name} {wheel.stat().st_size:,} B, {sdist.name} {sdist.stat().st_size:,} B")
    return wheel


def wanted_files() -> set[str]:
    """Every committed or new file of the packages, by its name in the wheel."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES.values(), DATA],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = (name for name in listed.stdout.splitlines() if (ROOT / name).is_file())
    # The demo's trace lies beside the examples and travels inside the SDK's package.
    return {name.replace(DATA, "x/callmeter/data").split("/", 1)[1] for name in names}


def check_contents(wheel: Path) -> list[str]:
    """What is wrong with the wheel's list of files."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    meta = {name for name in names if ".dist-info/" in name}
    wrong = [f"missing: {name}" for name in sorted(wanted_files() - names)]
    wrong += [f"not ours: {name}" for name in sorted(names - meta - wanted_files())]
    wrong += [f"missing: {name}/py.typed" for name in PACKAGES if f"{name}/py.typed" not in names]
    wrong += [
        f"missing: {licence}"
        for licence in ("LICENSE", "NOTICE")
        if not any(name.endswith(f"/licenses/{licence}") for name in meta)
    ]
    return wrong


def pins(folder: Path) -> Path:
    """The lock without hashes: pip refuses to mix hashes with a local wheel."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pinned = [line.rstrip("\\ ") for line in lines if re.match(r"\w", line)]
    path = folder / "constraints.txt"
    path.write_text("\n".join(pinned))
    return path


def check_bare_install(wheel: Path, folder: Path) -> list[str]:
    """What is wrong with the wheel in an environment that holds nothing else."""
    python = folder / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", folder / "venv")
    run(python, "-m", "pip", "install", "-q", "-c", pins(folder), wheel)
    wrong = []

    listed = run(python, "-m", "pip", "list", "--format=freeze", capture=True).stdout.split()
    ours = [line for line in listed if not line.startswith(("pip==", "setuptools==", "wheel=="))]
    print(f"bare install: {' '.join(ours)}")
    if len(ours) > MOST_DISTRIBUTIONS:
        wrong.append(f"a bare install brings {len(ours)} distributions")

    probe = "import sys, callmeter; print(callmeter.__file__); print(*sys.modules)"
    where, modules = run(python, "-c", probe, capture=True).stdout.splitlines()
    if not Path(where).is_relative_to(folder):
        wrong.append(f"imported from {where}")
    loaded = sorted(set(HEAVY) & set(modules.split()))
    if loaded:
        wrong.append(f"import callmeter loads {', '.join(loaded)}")

    told = run(folder / "venv" / "bin" / "callmeter", check=False, capture=True)
    if told.returncode != EXIT_CONFIG or "pip install 'callmeter[cli]'" not in told.stderr:
        wrong.append(f"callmeter without its extra: {told.returncode} {told.stderr.strip()}")
    return wrong


def main() -> int:
    wheel = build()
    wrong = check_contents(wheel)
    with tempfile.TemporaryDirectory() as folder:
        wrong += check_bare_install(wheel, Path(folder).resolve())
    for line in wrong:
        print(f"wheel: {line}")
    print("wheel: wrong" if wrong else "wheel: good")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

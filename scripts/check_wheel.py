#!/usr/bin/env python3
"""Build wheels and sdist, check what is in them, and use a wheel in an empty environment.

Checked: every file of the three packages is in the wheels and nothing else is, but for what was
compiled, in the wheel of this platform alone and without a path of this machine; the licence
travels along; a bare install brings at most four distributions, imports light, and answers
``callmeter`` with the exact install that is missing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
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


def run(
    *command: str | Path, env: dict[str, str] | None = None, **options: bool
) -> subprocess.CompletedProcess[str]:
    """Run from an empty directory, so that nothing of the checkout is importable by accident."""
    with tempfile.TemporaryDirectory() as elsewhere:
        return subprocess.run(
            [str(part) for part in command],
            cwd=elsewhere,
            env=env,
            stdin=subprocess.DEVNULL,
            text=True,
            check=options.get("check", True),
            capture_output=options.get("capture", False),
        )


def build() -> list[Path]:
    """A wheel of this platform, from the sdist as an installer from source has it, and any's.

    One alone where nothing can be compiled.
    """
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", dist)
    run(*command, ROOT)
    if not any(map(is_pure, dist.glob("*.whl"))):
        run(*command, "--wheel", ROOT, env={**os.environ, "CALLMETER_COMPILED": "no"})
    for path in sorted(dist.iterdir()):
        print(f"{path.name} {path.stat().st_size:,} B")
    return sorted(dist.glob("*.whl"))


def is_pure(wheel: Path) -> bool:
    return wheel.name.endswith("-py3-none-any.whl")


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
    with zipfile.ZipFile(wheel) as archive:
        contents = {each: archive.read(each) for each in archive.namelist() if each[-1] != "/"}
    names = set(contents)
    wanted = wanted_files()
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    modules = {name.removesuffix(".pyx") + suffix for name in wanted if name.endswith(".pyx")}
    if not is_pure(wheel):
        wanted |= modules
    meta = {name for name in names if ".dist-info/" in name}
    wrong = [f"missing: {name}" for name in sorted(wanted - names)]
    wrong += [f"not ours: {name}" for name in sorted(names - meta - wanted)]
    wrong += [f"missing: {name}/py.typed" for name in PACKAGES if f"{name}/py.typed" not in names]
    wrong += [
        f"{name} names {place}"
        for name in sorted(modules & names)
        for place in (str(ROOT), sys.base_prefix, tempfile.gettempdir())
        if f"{place}/".encode() in contents[name]
    ]
    wrong += [
        f"missing: {licence}"
        for licence in ("LICENSE", "NOTICE")
        if not any(name.endswith(f"/licenses/{licence}") for name in meta)
    ]
    return [f"{wheel.name}: {each}" for each in wrong]


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
    wheels = build()
    wrong = [each for wheel in wheels for each in check_contents(wheel)]
    with tempfile.TemporaryDirectory() as folder:
        # The platform's own if there are two: "cp311" comes before "py3".
        wrong += check_bare_install(wheels[0], Path(folder).resolve())
    for line in wrong:
        print(f"wheel: {line}")
    print("wheel: wrong" if wrong else "wheel: good")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

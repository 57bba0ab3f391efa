"""The build's hook: compiled where it can be, whole without, and it says which."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
MODULE = f"small/_fast{SUFFIX}"
NO_COMPILER = "/nonexistent/cc"
LINE = "there is no C compiler '/nonexistent/cc': install gcc"

PROJECT = """
[build-system]
requires = ["hatchling", "cython"]
build-backend = "hatchling.build"
[project]
name = "small"
version = "1"
requires-python = ">=3.11"
[tool.hatch.build]
dev-mode-dirs = ["lib"]
[tool.hatch.build.targets.wheel]
packages = ["lib/small"]
[tool.hatch.build.targets.wheel.hooks.custom]
path = "scripts/hatch_compile.py"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of one module, with the real hook: it is compiled in a moment."""
    package = tmp_path / "project" / "lib" / "small"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "_fast.pyx").write_text("def twice(long n):\n    return 2 * n\n")
    root = tmp_path / "project"
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "hatch_compile.py", root / "scripts")
    return root


def build(
    project: Path, kind: str = "wheel", **settings: str
) -> tuple[subprocess.CompletedProcess[str], Path | None]:
    """What the build said, and the wheel; through the door that pip and uv come in by."""
    out = project.parent / "out"
    out.mkdir(exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if k not in {"CC", "CALLMETER_COMPILED"}}
    kept["CFLAGS"] = "-O0"  # sooner done
    code = f"import hatchling.build as b; print(b.build_{kind}({str(out)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env={**kept, **settings},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    name = done.stdout.strip()
    return done, out / name if name else None


def names(wheel: Path | None) -> list[str]:
    assert wheel is not None
    listed = zipfile.ZipFile(wheel).namelist()
    return sorted(name for name in listed if ".dist-info/" not in name)


def call(where: Path) -> str:
    code = "import small._fast as f; print(f.twice(21), f.__file__)"
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(where)},
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip


def test_a_wheel_holds_what_was_compiled_and_is_of_this_platform(project: Path) -> None:
    done, wheel = build(project, CALLMETER_COMPILED="require")
    assert done.returncode == 0, done.stderr
    assert names(wheel) == ["small/__init__.py", MODULE, "small/_fast.pyx"]
    assert wheel is not None
    assert "-none-any" not in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        meta = archive.read("small-1.dist-info/WHEEL").decode()
        archive.extractall(project.parent / "site")
    assert "Root-Is-Purelib: false" in meta
    assert call(project.parent / "site").startswith("42 ")
    # Where it was made is nobody's business.
    module = (project.parent / "site" / MODULE).read_bytes()
    assert str(project.parent).encode() not in module
    assert f"{sys.base_prefix}/".encode() not in module
    # Nothing is left in the sources.
    assert [
        path.name for path in (project / "lib" / "small").iterdir() if path.suffix != ".py"
    ] == ["_fast.pyx"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"CALLMETER_COMPILED": "no"}, ""), ({"CC": NO_COMPILER}, LINE)],
    ids=["as asked", "without a compiler"],
)
def test_without_compiled_code_the_wheel_is_for_every_platform(
    project: Path, settings: dict[str, str], said: str
) -> None:
    done, wheel = build(project, **settings)
    assert done.returncode == 0, done.stderr
    assert names(wheel) == ["small/__init__.py", "small/_fast.pyx"]
    assert wheel is not None
    assert wheel.name == "small-1-py3-none-any.whl"
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == bool(said)


def test_without_headers_it_says_so_in_a_line(project: Path) -> None:
    hook = project / "scripts" / "hatch_compile.py"
    text = hook.read_text()
    hook.write_text(text.replace('"Python.h"', '"Absent.h"'))
    done, wheel = build(project)
    assert "install python3-dev" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert MODULE not in names(wheel)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"CALLMETER_COMPILED": "require", "CC": NO_COMPILER}, LINE),
        ({"CALLMETER_COMPILED": "perhaps"}, "CALLMETER_COMPILED is 'perhaps', not unset"),
    ],
    ids=["no compiler", "no such choice"],
)
def test_what_was_asked_for_and_cannot_be_fails_in_a_line(
    project: Path, settings: dict[str, str], said: str
) -> None:
    done, wheel = build(project, **settings)
    assert done.returncode != 0
    assert wheel is None
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("choice", ["", "require"])
def test_what_a_failing_tool_said_is_shown_where_compiling_is_required(
    project: Path, choice: str
) -> None:
    stub = project.parent / "stub"
    stub.mkdir()
    (stub / "cython.py").write_text("raise SystemExit('_fast.pyx:1:2: a mistake')\n")
    done, wheel = build(project, CALLMETER_COMPILED=choice, PYTHONPATH=str(stub))
    lines = done.stderr.splitlines()
    if choice == "require":
        assert done.returncode != 0
        assert lines[0] == "_fast.pyx:1:2: a mistake"
        assert lines[1].endswith("CALLMETER_COMPILED=require: Cython failed")
    else:
        assert done.returncode == 0
        assert MODULE not in names(wheel)
        assert lines[0].endswith("Cython failed (CALLMETER_COMPILED=require shows how)")
        assert len(lines) == 1


def test_an_editable_install_has_it_in_place_and_loses_it_with_the_choice(project: Path) -> None:
    done, wheel = build(project, "editable")
    assert done.returncode == 0, done.stderr
    assert not any(name.endswith((".so", ".pyx")) for name in names(wheel))
    assert call(project / "lib").strip() == f"42 {project / 'lib' / MODULE}"
    done, _ = build(project, "editable", CALLMETER_COMPILED="no")
    assert done.returncode == 0, done.stderr
    assert not (project / "lib" / MODULE).exists()

"""Tools of operators for tests: helm, prometheus, promtool; and the chart as helm renders it.

``CALLMETER_REQUIRE_OPS=1`` turns "cannot be had" into a failure: CI never passes by skipping.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "callmeter"
EXAMPLES = ROOT / "deploy" / "helm" / "examples"

Manifest = dict[str, Any]


@cache
def script(name: str) -> ModuleType:
    """A program of ``scripts/`` as a module."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / f"scripts/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tool(name: str) -> Path:
    """A tool's program, brought if it is missing; skips (in CI: fails) if it cannot be had."""
    tools = script("ops_tools")
    try:
        found: Path = tools.bring(name)
    except tools.CannotInstallError as exc:
        if os.environ.get("CALLMETER_REQUIRE_OPS", "") not in ("", "0"):
            pytest.fail(f"{name} is required: {exc}")
        pytest.skip(f"needs {name}: {exc}")
    return found


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run helm to its end."""
    return subprocess.run(
        [str(tool("helm")), *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def rendered(example: str, *options: str) -> list[Manifest]:
    """The chart's manifests with the values of ``deploy/helm/examples/<example>.yaml``."""
    done = helm(
        "template", "meter", CHART, "-n", "metering", "-f", EXAMPLES / f"{example}.yaml", *options
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]

"""`import callmeter` stays light: the base install meters, everything else is asked for."""

import json
import subprocess
import sys

import pytest

HEAVY = ["aiokafka", "faust", "clickhouse_connect", "aiohttp", "chdb"]

# A child process: this one has long imported what its plugins and neighbours wanted.
_PROBE = """
import json, sys, time
began = time.perf_counter()
import callmeter
took_ms = (time.perf_counter() - began) * 1000
print(json.dumps({"took_ms": took_ms, "modules": sorted(sys.modules)}))
"""


def probe(*before: str) -> dict[str, object]:
    lines = [*before, _PROBE]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    seen: dict[str, object] = json.loads(done.stdout)
    return seen


@pytest.fixture(scope="module")
def imported() -> dict[str, object]:
    seen = probe()
    print(f"import callmeter: {seen['took_ms']:.1f} ms")
    return seen


def test_the_probe_would_see_a_heavy_module() -> None:
    assert "aiohttp" in probe("import aiohttp")["modules"]


@pytest.mark.parametrize("name", HEAVY)
def test_import_does_not_load(imported: dict[str, object], name: str) -> None:
    assert "callmeter" in imported["modules"]
    assert name not in imported["modules"]


@pytest.mark.parametrize("name", ["callmeter_processors", "callmeter_sinks"])
def test_import_does_not_load_the_other_packages(imported: dict[str, object], name: str) -> None:
    assert name not in imported["modules"]

"""The compiled hot path and the one in Python: both there, alike, and under the same tests."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from callmeter.sdk import plain_hot
from callmeter.sdk.ended import Ended
from callmeter.sdk.hot import compiled

HERE = Path(__file__).parent
#: What calls do. The rest of the SDK's tests runs with what is compiled.
TESTS = ("test_hot_path", "test_calls", "test_context", "test_track")


@pytest.fixture
def hot() -> Any:
    """The compiled module."""
    if compiled():
        return importlib.import_module("callmeter.sdk._hot")
    text = "nothing was compiled: a C compiler is missing, see CONTRIBUTING.md"
    if os.environ.get("CALLMETER_COMPILED") == "require":
        pytest.fail(f"{text} (CALLMETER_COMPILED=require)", pytrace=False)
    pytest.skip(text)


def test_both_have_the_same_attributes_and_say_the_same_of_them(hot: Any) -> None:
    twins = [(hot.Ended, Ended)] + [
        (getattr(hot, name), getattr(plain_hot, name))
        for name in ("HotCall", "HotIntake", "HotDefault")
    ]
    for here, there in twins:
        mine, its = ({n for n in dir(c) if n[:2] != "__"} for c in (here, there))
        assert mine == {n for n in its if not n.startswith("_") or n == "_token"}
    for name in ("usage", "set"):
        assert getattr(hot.HotCall, name).__doc__ == getattr(plain_hot.HotCall, name).__doc__


def test_the_tests_of_calls_run_without_compiled_code(hot: Any) -> None:
    files = [str(HERE / f"{name}.py") for name in TESTS]
    program = f"""
import sys
sys.modules["callmeter.sdk._hot"] = None  # as if there were none
import pytest
code = pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *{files}])
from callmeter.sdk import hot
sys.exit(code or hot.compiled())
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=HERE.parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4_000:] + ran.stderr[-2_000:]

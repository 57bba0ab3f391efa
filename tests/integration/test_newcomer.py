"""The README's second section, as a newcomer runs it: a wheel, ten lines, a report."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import environment
from support.openai_stub import COMPLETION_TOKENS, PROMPT_TOKENS, OpenAIStub

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")

pytestmark = pytest.mark.slow


def run(*command: str | Path, **env: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True, text=True, env=environment(**env), check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment that has only the built wheel with [embedded,openai]."""
    dist = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", dist, ROOT)
    wheel = next(dist.glob("*.whl"))
    venv = tmp_path_factory.mktemp("fresh") / "venv"
    run(UV, "venv", "--python", sys.executable, venv)
    run(UV, "pip", "install", "--python", venv / "bin" / "python",
        "-c", ROOT / "requirements.lock", f"{wheel}[embedded,openai]")  # fmt: skip
    return venv / "bin"


def test_the_readme_shows_the_example_that_is_run() -> None:
    example = (ROOT / "examples" / "ten_lines.py").read_text()
    code = example.partition('"""\n\n')[2]
    assert code in (ROOT / "README.md").read_text()


def test_ten_lines_are_metered_and_priced(fresh: Path, tmp_path: Path) -> None:
    with (
        OpenAIStub() as stub,
        subprocess.Popen(
            [fresh / "callmeter", "up", "--dir", tmp_path / "data", "--port", "0"],
            stdout=subprocess.PIPE, text=True, env=environment(),
        ) as up,
    ):  # fmt: skip
        try:
            assert up.stdout is not None
            found = re.search(r"http://\S+:\d+", up.stdout.readline())
            assert found is not None
            out = run(
                fresh / "python", ROOT / "examples" / "ten_lines.py",
                CALLMETER_URL=found[0], OPENAI_BASE_URL=stub.base_url, OPENAI_API_KEY="test",
            )  # fmt: skip
            assert out.count("The answer is 42.") == 2
        finally:
            up.terminate()
        assert up.wait(60) == 0
    text = run(fresh / "callmeter", "report", "--dir", tmp_path / "data", "--json")
    (row,) = json.loads(text)["rows"]
    assert row["model"] == "gpt-4o-mini"
    assert row["calls"] == 2
    assert row["input_tokens"] == 2 * PROMPT_TOKENS
    assert row["output_tokens"] == 2 * COMPLETION_TOKENS
    assert (row["unpriced_calls"], row["usage_unknown"]) == (0, 0)
    # 2 × (8 × 0.15 + 4 cached × 0.075 + 7 × 0.60) USD per million tokens
    assert row["cost_usd"] == "0.0000114"
    assert row["latency_p50_ms"] > 0
    run(fresh / "callmeter", "verify", "--dir", tmp_path / "data")

"""The document's programs, as files under ``examples/``, run as their readers run them."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from support.cli import ROOT, environment


def example(tmp_path, name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env=environment(CALLMETER_URL="noop:"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_quick_start(tmp_path):
    out = example(tmp_path, "sygra_quickstart.py").splitlines()
    assert out[:4] == [
        "Total cost: $0.0006",
        "Total requests: 10",
        "Models used: ['gpt-4o-mini']",
        "Nodes executed: ['summarizer']",
    ]
    assert out[6] == "Metadata collection is active"
    output = re.fullmatch(r"Output: (tasks/my_task/output_(.+)\.json)", out[4])
    metadata = re.fullmatch(
        r"Metadata: (tasks/my_task/metadata/metadata_my_task_(.+)\.json)", out[5]
    )
    assert output is not None
    assert metadata is not None
    assert output[2] == metadata[2]
    assert len(json.loads((tmp_path / output[1]).read_text(encoding="utf-8"))) == 10
    found = json.loads((tmp_path / metadata[1]).read_text(encoding="utf-8"))
    assert found["aggregate_statistics"]["tokens"] == {
        "total_prompt_tokens": 440,
        "total_completion_tokens": 920,
        "total_tokens": 1360,
    }
    node = found["nodes"]["summarizer"]
    assert node["total_executions"] == 10
    assert node["token_statistics"]["avg_total_tokens"] == 136.0
    assert node["cost"]["total_cost_usd"] == 0.000618


def test_the_command_line(tmp_path):
    documents = "tasks/examples/glaive_code_assistant/metadata"
    task = "examples.glaive_code_assistant"
    assert example(tmp_path, "sygra_main.py", "--task", task, "--num_records=10") == "10 records\n"
    (written,) = tmp_path.glob(f"{documents}/metadata_*.json")
    assert json.loads(written.read_text(encoding="utf-8"))["execution"]["task_name"] == task
    for flags in (("-dm", "True"), ("--disable_metadata", "True")):
        assert example(tmp_path, "sygra_main.py", "-t", "mytask", "-n", "1000", *flags) == (
            "1000 records\n"
        )
    assert not (tmp_path / "tasks" / "mytask").exists()


def test_custom_models(tmp_path):
    assert example(tmp_path, "sygra_models.py") == "gpt-4o OpenAI 10 15\nllama TGI 4 11\n"


def test_an_agent(tmp_path):
    pytest.importorskip("langchain_core")
    assert example(tmp_path, "sygra_agent.py") == "Hello\n15\n15\n"

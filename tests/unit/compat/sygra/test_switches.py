"""On by default; off by environment, flag and code (rows 62 to 69, 119)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from callmeter.compat.sygra import get_metadata_collector, run
from support.cli import environment

#: A program that makes one record and one request, and prints the same whatever is switched.
PROGRAM = """
import sys
from callmeter.compat.sygra import get_metadata_collector, run
with run.from_args(sys.argv[1:], task="mytask") as this:
    get_metadata_collector().record_model_request("gpt-4o-mini", prompt_tokens=1)
    this.record()
    print("done", this.num_records)
"""


def ran(tmp_path: Path, *arguments: str, **env: str) -> tuple[str, list[Path]]:
    """What the program printed, and the documents it wrote."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
        env=environment(CALLMETER_URL="noop:", **env),
    )  # fmt: skip
    return done.stdout, sorted(tmp_path.glob("tasks/mytask/metadata/*.json"))


@pytest.mark.acceptance(62)
def test_a_first_run_without_configuration_writes_a_document(tmp_path):
    out, written = ran(tmp_path)
    assert out == "done None\n"
    (path,) = written
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["execution"]["task_name"] == "mytask"
    assert found["aggregate_statistics"]["requests"]["total_requests"] == 1


@pytest.mark.acceptance(63)
def test_the_environment_disables(tmp_path):
    for text in ("1", "true", "yes", "TRUE", "Yes"):
        out, written = ran(tmp_path, SYGRA_DISABLE_METADATA=text)
        assert (out, written) == ("done None\n", []), text
    for n, text in enumerate(("0", "no", ""), start=1):
        _, written = ran(tmp_path, SYGRA_DISABLE_METADATA=text)
        assert len(written) == n, text


@pytest.mark.acceptance(63)
@pytest.mark.parametrize("text", ["1", "true", "yes", "TRUE", "Yes"])
def test_disabled_by_the_environment_nothing_is_recorded(
    collector, captured, monkeypatch, tmp_path, text
):
    monkeypatch.setenv("SYGRA_DISABLE_METADATA", text)
    with run(task="t", output_dir=tmp_path) as this:
        collector.record_model_request("gpt-4o-mini", prompt_tokens=1)
        this.record()
        summary = collector.get_metadata_summary()
    assert summary["models"] == {}
    assert summary["aggregate_statistics"]["records"]["total_processed"] == 0
    assert captured.events == []
    assert this.metadata_path is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.acceptance(64)
def test_the_flag_disables_one_run_and_changes_nothing_else(tmp_path):
    assert ran(tmp_path, "-n", "10", "-dm", "True") == ("done 10\n", [])
    assert ran(tmp_path, "--num_records", "10", "--disable_metadata", "True") == ("done 10\n", [])
    out, written = ran(tmp_path, "-n", "10", "-dm", "False")
    assert out == "done 10\n"
    assert len(written) == 1
    _, written = ran(tmp_path, "--num_records", "10", "--disable_metadata", "False")
    assert len(written) == 2


@pytest.mark.acceptance(64)
def test_the_flag_is_the_run_s_own(collector, tmp_path):
    with run(task="t", output_dir=tmp_path, disable_metadata="True") as this:
        assert not collector.is_enabled()
    assert this.metadata_path is None
    assert collector.is_enabled()
    with run(task="t", output_dir=tmp_path, disable_metadata=False) as this:
        assert collector.is_enabled()
    assert this.metadata_path is not None


@pytest.mark.acceptance(65)
def test_code_disables_and_enables_again(collector, captured):
    collector.record_model_request("model1", prompt_tokens=1)
    collector.set_enabled(False)
    assert collector.is_enabled() is False
    collector.set_execution_context("other")
    collector.set_dataset_metadata("hf", "x")
    collector.add_dataset_source("a", "hf")
    collector.record_model_request("model2", prompt_tokens=1)
    collector.record_node_execution("n", "llm", 1.0, True)
    collector.record_processed_record()
    collector.finalize_execution()
    summary = collector.get_metadata_summary()
    assert list(summary["models"]) == ["model1"]
    assert summary["nodes"] == {}
    assert summary["dataset"]["source_type"] == "unknown"
    assert summary["execution"]["task_name"] == "unknown"
    assert summary["execution"]["timing"]["end_time"] is None
    assert summary["aggregate_statistics"]["records"]["total_processed"] == 0
    assert len(captured.events) == 1
    collector.set_enabled(True)
    assert collector.is_enabled() is True
    collector.record_model_request("model3", prompt_tokens=1)
    assert list(collector.get_metadata_summary()["models"]) == ["model1", "model3"]


@pytest.mark.acceptance(66)
def test_toggled_in_the_middle_of_a_run(collector, tmp_path):
    with run(task="t", output_dir=tmp_path) as this:
        collector.record_model_request("model1")
        collector.set_enabled(False)
        collector.record_model_request("model2")
        collector.set_enabled(True)
        collector.record_model_request("model3")
    assert this.metadata_path is not None
    found = json.loads(this.metadata_path.read_text(encoding="utf-8"))
    assert list(found["models"]) == ["model1", "model3"]


@pytest.mark.acceptance(67)
def test_a_reset_keeps_the_switch(collector):
    collector.record_model_request("model1")
    collector.record_processed_record()
    collector.set_enabled(False)
    collector.reset()
    summary = collector.get_metadata_summary()
    assert summary["models"] == {}
    assert summary["aggregate_statistics"]["records"]["total_processed"] == 0
    assert collector.is_enabled() is False


@pytest.mark.acceptance(68)
def test_saving_while_disabled_writes_nothing(collector, tmp_path):
    collector.record_model_request("model1")
    collector.set_enabled(False)
    assert collector.save_metadata() is None
    assert collector.save_metadata(tmp_path / "here" / "it.json") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.acceptance(69)
def test_one_collector_in_a_process_and_runs_apart(collector, tmp_path):
    assert get_metadata_collector() is collector
    first, second = run(task="one", output_dir=tmp_path), run(task="two", output_dir=tmp_path)
    import contextvars

    def work(this, model):
        this.__enter__()
        collector.record_model_request(model)

    one, two = contextvars.copy_context(), contextvars.copy_context()
    one.run(work, first, "model1")
    two.run(work, second, "model2")
    one.run(collector.record_model_request, "model1")
    one.run(first.__exit__, None, None, None)
    two.run(second.__exit__, None, None, None)
    assert first.run_id != second.run_id
    for this, models in ((first, {"model1": 2}), (second, {"model2": 1})):
        found = json.loads(this.metadata_path.read_text(encoding="utf-8"))
        counts = {name: m["performance"]["total_requests"] for name, m in found["models"].items()}
        assert counts == models


@pytest.mark.acceptance(69)
def test_a_forked_process_has_its_own_data(collector):
    collector.record_model_request("model1")
    mine = collector.run_id
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            collector.record_model_request("model2")
            seen = list(collector.get_metadata_summary()["models"]) == ["model2"]
            apart = collector.run_id != mine and get_metadata_collector() is collector
            os.write(write, b"apart" if seen and apart else b"mixed")
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        assert answer.read() == b"apart"
    os.waitpid(child, 0)
    assert list(collector.get_metadata_summary()["models"]) == ["model1"]


@pytest.mark.acceptance(119)
def test_a_second_run_starts_from_zero(collector, tmp_path):
    for _ in range(2):
        with run(task="t", output_dir=tmp_path) as this:
            collector.set_dataset_metadata("memory", num_records=1)
            collector.record_model_request("model1", prompt_tokens=3)
            collector.record_node_execution("n", "lambda", 1.0, True)
            this.record()
        found = json.loads(this.metadata_path.read_text(encoding="utf-8"))
        assert found["aggregate_statistics"]["requests"]["total_requests"] == 1
        assert found["aggregate_statistics"]["records"]["total_processed"] == 1
        assert found["aggregate_statistics"]["tokens"]["total_tokens"] == 3
        assert found["nodes"]["n"]["total_executions"] == 1


@pytest.mark.acceptance(119)
def test_naming_a_run_after_one_has_ended_starts_from_zero(collector, tmp_path):
    collector.set_execution_context("one", output_dir=tmp_path)
    collector.record_model_request("model1")
    assert collector.save_metadata() is not None
    collector.set_execution_context("two", output_dir=tmp_path)
    assert collector.get_metadata_summary()["models"] == {}

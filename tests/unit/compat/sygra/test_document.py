"""The document: its keys, its context, its file (rows 71 to 78, 113 to 117)."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from datetime import datetime

import pytest

import callmeter
from callmeter.compat.sygra import run

NULL_GIT = {"commit_hash": None, "branch": None, "is_dirty": None, "remote_url": None}


def git(directory, *arguments):
    done = subprocess.run(
        ["git", "-c", "user.name=n", "-c", "user.email=e@x", *arguments],
        cwd=directory, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one commit, and the working directory in it."""
    place = tmp_path / "repository"
    place.mkdir()
    git(place, "init", "-q", "-b", "trunk")
    (place / "file").write_text("one\n")
    git(place, "add", "file")
    git(place, "commit", "-q", "-m", "one")
    monkeypatch.chdir(place)
    return place


@pytest.mark.acceptance(71)
def test_top_level_keys(collector):
    found = collector.get_metadata_summary()
    assert list(found) == [
        "metadata_version",
        "generated_at",
        "execution",
        "dataset",
        "aggregate_statistics",
        "models",
        "nodes",
    ]
    assert found["metadata_version"] == "1.0.0"
    assert datetime.fromisoformat(found["generated_at"])


@pytest.mark.acceptance(71)
def test_every_key_of_the_document_s_example(collector):
    collector.set_execution_context("t")
    collector.record_model_request("m", prompt_tokens=1, latency=1.0, cost_usd=0.1)
    collector.record_node_execution("n", "llm", 1.0, True, "m", 1, 1, 2, 0.1)
    found = collector.get_metadata_summary()
    tokens = ["total_prompt_tokens", "total_completion_tokens", "total_tokens"]
    averages = ["avg_prompt_tokens", "avg_completion_tokens", "avg_total_tokens"]
    latency = ["min", "max", "mean", "median", "std_dev", "p50", "p95", "p99"]
    aggregate = found["aggregate_statistics"]
    assert list(aggregate) == ["records", "tokens", "requests", "cost"]
    assert list(aggregate["records"]) == ["total_processed", "total_failed", "success_rate"]
    assert list(aggregate["tokens"]) == tokens
    assert list(aggregate["requests"]) == [
        "total_requests",
        "total_retries",
        "total_failures",
        "retry_rate",
        "failure_rate",
    ]
    assert list(aggregate["cost"]) == ["total_cost_usd", "average_cost_per_record"]
    model = found["models"]["m"]
    assert list(model) == [
        "model_name",
        "model_type",
        "model_url",
        "token_statistics",
        "performance",
        "cost",
        "response_code_distribution",
        "parameters",
    ]
    assert list(model["token_statistics"]) == tokens + averages
    assert list(model["performance"]) == [
        "total_requests",
        "total_retries",
        "total_failures",
        "failure_rate",
        "total_latency_seconds",
        "average_latency_seconds",
        "tokens_per_second",
        "latency_statistics",
    ]
    assert list(model["performance"]["latency_statistics"]) == latency
    assert list(model["cost"]) == ["total_cost_usd", "average_cost_per_request"]
    node = found["nodes"]["n"]
    assert list(node) == [
        "node_name",
        "node_type",
        "model_name",
        "total_executions",
        "total_failures",
        "failure_rate",
        "total_latency_seconds",
        "average_latency_seconds",
        "latency_statistics",
        "cost",
        "token_statistics",
    ]
    assert list(node["latency_statistics"]) == latency
    assert list(node["cost"]) == ["total_cost_usd", "average_cost_per_execution"]
    assert list(node["token_statistics"]) == tokens + averages


@pytest.mark.acceptance(72)
def test_the_execution_block(collector, tmp_path):
    collector.set_execution_context("tasks.examples.my_task")
    block = collector.get_metadata_summary()["execution"]
    assert list(block) == [
        "task_name",
        "run_name",
        "output_dir",
        "batch_size",
        "checkpoint_interval",
        "resumable",
        "debug",
        "timing",
        "environment",
        "git",
    ]
    assert (block["task_name"], block["run_name"]) == ("tasks.examples.my_task", "")
    assert (block["batch_size"], block["checkpoint_interval"]) == (50, 100)
    assert (block["resumable"], block["debug"], block["output_dir"]) == (False, False, None)
    collector.set_execution_context(
        task_name="my_task", run_name="first", output_dir="/path/to/output", batch_size=25,
        checkpoint_interval=10, resumable=True, debug=True,
    )  # fmt: skip
    block = collector.get_metadata_summary()["execution"]
    assert block["task_name"] == "my_task"
    assert block["run_name"] == "first"
    assert block["output_dir"] == "/path/to/output"
    assert block["batch_size"] == 25
    assert block["checkpoint_interval"] == 10
    assert block["resumable"] is True
    assert block["debug"] is True


@pytest.mark.acceptance(73)
def test_timing(collector):
    collector.set_execution_context("t")
    timing = collector.get_metadata_summary()["execution"]["timing"]
    assert timing["end_time"] is None
    assert timing["duration_seconds"] is None
    collector.finalize_execution()
    timing = collector.get_metadata_summary()["execution"]["timing"]
    assert list(timing) == ["start_time", "end_time", "duration_seconds"]
    start, end = (datetime.fromisoformat(timing[name]) for name in ("start_time", "end_time"))
    assert timing["duration_seconds"] == round((end - start).total_seconds(), 3)


@pytest.mark.acceptance(73)
def test_timing_of_known_times():
    from callmeter.compat.sygra.execution import ExecutionContext

    context = ExecutionContext(
        start_time=datetime.fromisoformat("2025-10-30T18:19:07.899389"),
        end_time=datetime.fromisoformat("2025-10-30T18:19:11.657968"),
    )
    assert context.to_json()["timing"]["duration_seconds"] == 3.759


@pytest.mark.acceptance(74)
def test_environment(collector):
    block = collector.get_metadata_summary()["execution"]["environment"]
    assert block["python_version"] == platform.python_version()
    assert block["sygra_version"] == callmeter.__version__
    assert block["python_version"]
    assert block["sygra_version"]


@pytest.mark.acceptance(75)
def test_git_is_what_git_says(collector, repository):
    def block():
        collector.set_execution_context("t")
        return collector.get_metadata_summary()["execution"]["git"]

    found = block()
    assert found["commit_hash"] == git(repository, "rev-parse", "HEAD")
    assert found["branch"] == git(repository, "rev-parse", "--abbrev-ref", "HEAD") == "trunk"
    assert found["is_dirty"] is False
    (repository / "file").write_text("two\n")
    assert block()["is_dirty"] is True
    git(repository, "commit", "-q", "-a", "-m", "two")
    assert block()["is_dirty"] is False
    assert block()["commit_hash"] == git(repository, "rev-parse", "HEAD") != found["commit_hash"]


@pytest.mark.acceptance(75)
def test_outside_of_a_repository(collector, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    collector.set_execution_context("t")
    assert collector.get_metadata_summary()["execution"]["git"] == NULL_GIT
    git(tmp_path, "init", "-q")  # a repository without a commit is as good as none
    collector.set_execution_context("t")
    assert collector.get_metadata_summary()["execution"]["git"] == NULL_GIT
    monkeypatch.setenv("PATH", str(tmp_path))  # and so is a machine without git
    collector.set_execution_context("t")
    assert collector.get_metadata_summary()["execution"]["git"] == NULL_GIT


@pytest.mark.acceptance(76)
@pytest.mark.parametrize(
    ("remote", "shown"),
    [
        ("https://user:hush@example.org/a/b.git", "https://example.org/a/b.git"),
        ("https://hush@example.org/a/b.git", "https://example.org/a/b.git"),
        ("https://example.org/a/b.git?private_token=hush", "https://example.org/a/b.git"),
        ("ssh://git@example.org:22/a/b.git", "ssh://example.org:22/a/b.git"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
    ],
)
def test_the_remote_has_no_credentials(collector, captured, repository, remote, shown):
    git(repository, "remote", "add", "origin", remote)
    collector.set_execution_context("t")
    assert collector.get_metadata_summary()["execution"]["git"]["remote_url"] == shown
    assert "hush" not in str(captured.events)


@pytest.mark.acceptance(77)
def test_the_dataset_block(collector):
    assert collector.get_metadata_summary()["dataset"] == {
        "source_type": "unknown",
        "source_path": None,
        "num_records_processed": 0,
        "start_index": 0,
        "dataset_version": None,
        "dataset_hash": None,
    }
    collector.set_dataset_metadata(
        source_type="hf", source_path="glaiveai/glaive-code-assistant-v2", num_records=10,
        start_index=0, dataset_version="0.0.0", dataset_hash="4b023d2345d21e2d",
    )  # fmt: skip
    assert collector.get_metadata_summary()["dataset"] == {
        "source_type": "hf",
        "source_path": "glaiveai/glaive-code-assistant-v2",
        "num_records_processed": 10,
        "start_index": 0,
        "dataset_version": "0.0.0",
        "dataset_hash": "4b023d2345d21e2d",
    }


@pytest.mark.acceptance(78)
def test_several_sources(collector):
    collector.add_dataset_source("questions", "hf", "org/questions", join_type="primary")
    collector.add_dataset_source("answers", "disk", "answers.json", join_type="cross")
    dataset = collector.get_metadata_summary()["dataset"]
    assert dataset["source_type"] == "multi-source"
    assert dataset["sources"] == {
        "questions": {
            "source_type": "hf",
            "source_path": "org/questions",
            "join_type": "primary",
        },
        "answers": {"source_type": "disk", "source_path": "answers.json", "join_type": "cross"},
    }


@pytest.mark.acceptance(113)
def test_the_file_s_name_and_place(collector, tmp_path):
    with run(task="tasks.examples/my.task", output_dir=tmp_path / "out") as this:
        pass
    pattern = r"metadata_tasks_examples_my_task_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.json"
    assert this.metadata_path is not None
    assert this.metadata_path.parent == tmp_path / "out" / "metadata"
    assert re.fullmatch(pattern, this.metadata_path.name)
    with run(task="tasks.examples/my.task") as this:
        pass
    assert this.metadata_path is not None
    assert this.metadata_path.parent.as_posix() == "tasks/examples/my/task/metadata"
    with run(task="my_task", timestamp="2025-10-30_18-19-07") as this:
        pass
    assert this.metadata_path is not None
    assert (
        this.metadata_path.as_posix()
        == "tasks/my_task/metadata/metadata_my_task_2025-10-30_18-19-07.json"
    )


@pytest.mark.acceptance(114)
def test_output_and_document_have_one_timestamp(tmp_path):
    with run(task="my_task", output_dir=tmp_path, output_with_ts=True) as this:
        written = this.write_output([{"text": "Hello"}])
    output = re.fullmatch(r"output_(.+)\.json", written.name)
    assert this.metadata_path is not None
    document = re.fullmatch(r"metadata_my_task_(.+)\.json", this.metadata_path.name)
    assert output is not None
    assert document is not None
    assert output[1] == document[1] == this.timestamp
    assert json.loads(written.read_text(encoding="utf-8")) == [{"text": "Hello"}]
    with run(task="my_task", output_dir=tmp_path) as plain:
        assert plain.output_path.name == "output.json"


def test_two_runs_within_a_second_have_two_documents(tmp_path):
    paths = set()
    for _ in range(3):
        with run(task="t", output_dir=tmp_path) as this:
            pass
        paths.add(this.metadata_path)
    assert len(paths) == 3


@pytest.mark.acceptance(115)
def test_an_explicit_path(collector, tmp_path):
    collector.set_execution_context("täsk ✓ 任务")
    wanted = tmp_path / "a" / "b" / "dokument ü.json"
    assert collector.save_metadata(str(wanted)) == wanted
    text = wanted.read_bytes().decode("utf-8")
    assert "täsk ✓ 任务" in text
    assert json.loads(text)["execution"]["task_name"] == "täsk ✓ 任务"
    assert [path.name for path in wanted.parent.iterdir()] == [wanted.name]


@pytest.mark.acceptance(116)
def test_a_document_that_cannot_be_written(collector, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with run(task="t", output_dir=tmp_path / "file" / "out") as this:
        result = "as ever"
    assert result == "as ever"
    assert this.metadata_path is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "could not be written" in caplog.text
    assert collector.save_metadata(tmp_path / "file" / "x.json") is None


@pytest.mark.acceptance(117)
def test_the_summary_of_a_run_that_goes_on(collector, tmp_path):
    with run(task="t", output_dir=tmp_path) as this:
        collector.record_model_request("gpt-4o-mini", prompt_tokens=440, completion_tokens=920)
        collector.record_node_execution("n", "lambda", 1.0, True)
        this.record()
        middle = collector.get_metadata_summary()
        assert middle["aggregate_statistics"]["requests"]["total_requests"] == 1
        collector.record_model_request("gpt-4o-mini")
    assert this.metadata_path is not None
    end = json.loads(this.metadata_path.read_text(encoding="utf-8"))
    assert end["aggregate_statistics"]["requests"]["total_requests"] == 2
    after = collector.get_metadata_summary()
    assert {**after, "generated_at": None} == {**end, "generated_at": None}
    assert list(middle) == list(end)
    assert middle["models"]["gpt-4o-mini"]["cost"]["total_cost_usd"] == 0.000618


def test_a_run_that_raises_is_documented(collector, tmp_path):
    this = run(task="t", output_dir=tmp_path)

    def fails():
        with this:
            collector.record_model_request("m")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails()
    assert this.metadata_path is not None
    assert list(json.loads(this.metadata_path.read_text(encoding="utf-8"))["models"]) == ["m"]

"""Collectors without a server. Rows 166–169."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from callmeter.compat.syvain import (
    BaseCollector,
    JsonlCollector,
    MetricsCollectorError,
    NoopCollector,
)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)


def rows(path: Path) -> list[dict]:
    lines = path.read_text(encoding="utf-8").splitlines()
    for line in lines:
        assert line == json.dumps(json.loads(line), separators=(",", ":"), ensure_ascii=False)
    return [json.loads(line) for line in lines]


@pytest.mark.acceptance(166)
def test_jsonl(tmp_path: Path, no_network: None):
    path = tmp_path / "artifacts" / "metrics" / "run-001.jsonl"
    for step in (1, 2):  # twice: the second appends
        experiment = JsonlCollector(path=path).experiment("run-001")
        with experiment.run():
            experiment.metric("loss", 0.42, step=step, metadata={"split": "train"})
            experiment.annotation("größer", metadata={"path": {"b": 1, "a": [2]}})
        experiment.flush_or_raise()
    told = rows(path)
    assert {row["slug"] for row in told} == {"run-001"}
    once = ["experiment", "status", "metric", "annotation", "status"]
    assert [row["type"] for row in told] == once * 2
    metric = told[2]
    assert metric["name"] == "loss"
    assert (metric["value"], metric["step"]) == (0.42, 1)
    assert metric["metadata"] == {"split": "train"}
    assert told[3]["annotation"] == "größer"
    assert list(told[3]["metadata"]["path"]) == ["b", "a"]
    assert [told[1]["status"], told[4]["status"]] == ["running", "done"]


@pytest.mark.acceptance(167)
def test_jsonl_opens_with_a_line_of_the_experiment(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    JsonlCollector(path=path).experiment("s", description="Baseline", meta={"model": "mamba"})
    (opened,) = rows(path)
    assert opened == {
        "type": "experiment",
        "slug": "s",
        "description": "Baseline",
        "meta": {"model": "mamba"},
    }


@pytest.mark.acceptance(168)
def test_noop(tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    experiment = NoopCollector().experiment("unit-test-run", meta={"a": 1}, folder_path="/x")
    with experiment.run():
        experiment.metric("loss", 0.42, step=1)
        experiment.annotation("note")
    result = experiment.flush_or_raise()
    assert result.ok
    delivered = (result.delivered_metrics, result.delivered_annotations, result.delivered_statuses)
    assert delivered == (1, 1, 2)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MetricsCollectorError):
        experiment.series("loss")


def script(collector: BaseCollector) -> list[object]:
    """What a user writes once; what they see of it."""
    seen: list[object] = []
    experiment = collector.experiment("run", description="d", meta={"seed": 7})
    seen.append(collector.experiment("run") is experiment)
    with experiment.run() as same:
        seen.append(same is experiment)
        for step in range(5):
            experiment.metric("loss", 1.0 / (step + 1), step=step, metadata={"split": "train"})
        experiment.metric("lr", 3e-4, None, timestamp=1700000000.5)
        experiment.annotation("saved", {"path": "ckpt"})
    with pytest.raises(ValueError):
        experiment.metric("loss", "abc", 1)
    result = experiment.flush_or_raise(retries=1)
    seen += [result, experiment.slug, experiment.description, experiment.meta]
    seen += [bool(experiment.id), "://" in experiment.url, experiment.started, experiment.terminal]
    seen.append(collector.flush())
    return seen


@pytest.mark.acceptance(169)
def test_one_script_on_all_three(make: Callable[..., BaseCollector], tmp_path: Path):
    over_http = script(make())
    assert over_http[2].delivered_metrics == 6
    assert script(JsonlCollector(tmp_path / "m.jsonl", flush_delay_seconds=3600)) == over_http
    assert script(NoopCollector(flush_delay_seconds=3600)) == over_http


def test_disabled_is_noop(stub, monkeypatch: pytest.MonkeyPatch):
    from callmeter.compat.syvain import Collector

    monkeypatch.setenv("CALLMETER_DISABLED", "1")
    experiment = Collector("key", stub.url).experiment("s")
    experiment.metric("m", 1, step=0)
    assert experiment.flush_or_raise().delivered_metrics == 1
    assert stub.requests == []

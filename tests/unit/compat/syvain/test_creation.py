"""Collectors and experiments: constructors, keys, creation, folders. Rows 120–124, 172."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from callmeter.compat.syvain import Collector, MetricsCollectorError, MetricsRequestError


@pytest.mark.acceptance(120)
def test_defaults_stand_in_the_signature_and_nothing_is_sent_without_a_key(stub, monkeypatch):
    shown = {n: p.default for n, p in inspect.signature(Collector).parameters.items()}
    assert shown["host"] == "https://metrics.syvain.com"
    assert shown["timeout"] == 10.0
    assert shown["ingest_timeout"] == 60.0
    assert shown["flush_delay_seconds"] == 0.25
    assert shown["max_queue_items"] == 100000
    assert shown["max_batch_items"] == 500
    assert shown["max_retries"] is None

    monkeypatch.setenv("CALLMETER_URL", stub.url)
    with pytest.raises(MetricsCollectorError):
        Collector()
    Collector("ak_org")
    assert stub.requests == []
    assert Collector("ak_org").host == stub.url
    assert Collector("ak_org", host="http://127.0.0.1:1").host == "http://127.0.0.1:1"
    monkeypatch.delenv("CALLMETER_URL")
    assert Collector("ak_org").host == "https://metrics.syvain.com"


def test_the_queue_limit_is_per_experiment(make):
    collector = make(max_queue_items=2)
    for slug in ("a", "b"):
        experiment = collector.experiment(slug)
        experiment.metric("m", 1, step=0)
        experiment.metric("m", 2, step=1)
    assert collector.flush().delivered_metrics == 4


@pytest.mark.acceptance(121)
@pytest.mark.parametrize(
    "wrong",
    [
        {"max_retries": -1},
        {"flush_delay_seconds": -1},
        {"max_queue_items": 0},
        {"max_batch_items": 0},
        {"timeout": 0},
        {"ingest_timeout": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValueError):
        Collector("ak_org", **wrong)


@pytest.mark.acceptance(122)
def test_creation_gives_id_and_absolute_url_and_raises_on_500(make, stub):
    experiment = make().experiment("run-1", description="Baseline ünï", meta={"seed": 7, "a": [1]})
    assert experiment.id == "exp-run-1"
    assert experiment.url == f"{stub.url}/experiments/1"
    sent = json.loads(stub.of("/v1/experiments")[0].body)
    assert sent["description"] == "Baseline ünï"
    assert sent["metadata"] == {"seed": 7, "a": [1]}

    stub.created_status = 500
    with pytest.raises(MetricsRequestError, match="HTTP 500") as caught:
        make().experiment("run-2")
    assert caught.value.status_code == 500
    assert caught.value.retryable


@pytest.mark.acceptance(123)
def test_the_same_slug_is_the_same_object_and_one_request(make, stub):
    collector = make()
    assert collector.experiment("s") is collector.experiment("s", description="ignored")
    assert len(stub.of("/v1/experiments")) == 1


@pytest.mark.acceptance(124)
def test_folders_by_id_and_by_path(make, stub):
    make().experiment("by-id", folder_id="00000000-0000-0000-0000-000000000000")
    assert len(stub.requests) == 1
    sent = json.loads(stub.requests[0].body)
    assert sent["folder_id"] == "00000000-0000-0000-0000-000000000000"

    stub.folders = [{"id": "folder-7", "path": "/mamba-run-001"}]
    make().experiment("by-path", folder_path="/mamba-run-001")
    assert [r.method for r in stub.requests[1:]] == ["GET", "POST"]
    assert stub.requests[1].path == "/v1/folders?path=%2Fmamba-run-001"
    assert json.loads(stub.requests[2].body)["folder_id"] == "folder-7"

    with pytest.raises(ValueError):
        make().experiment("both", folder_id="folder-7", folder_path="/mamba-run-001")
    stub.folders = []
    with pytest.raises(MetricsCollectorError, match="no folder"):
        make().experiment("none", folder_path="/nowhere")
    stub.folders = [{"id": "1"}, {"id": "2"}]
    with pytest.raises(MetricsCollectorError, match="2 folders"):
        make().experiment("several", folder_path="/twice")
    assert len(stub.of("/v1/experiments")) == 2


@pytest.mark.acceptance(172)
def test_the_key_comes_from_the_environment_or_is_missed_clearly(stub, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("CALLMETER_URL", stub.url)
    with pytest.raises(MetricsCollectorError, match="no API key: pass api_key, or set CALLMETER"):
        Collector()
    monkeypatch.setenv("SYVAIN_METRICS_API_KEY", "key-of-syvain")
    Collector().experiment("a")
    monkeypatch.setenv("CALLMETER_API_KEY", "key-of-callmeter")
    Collector().experiment("b")
    Collector("key-given").experiment("c")
    assert [r.headers["authorization"] for r in stub.requests] == [
        "Bearer key-of-syvain",
        "Bearer key-of-callmeter",
        "Bearer key-given",
    ]

"""Runs, their ends and the process around them. Rows 157–165."""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from callmeter.compat.syvain import JsonlCollector, MetricsCollectorError

PROGRAM = """
import sys
from callmeter.compat.syvain import Collector
experiment = Collector("key", sys.argv[1]).experiment("s")
"""


def statuses(stub) -> list[str]:
    return [e["status"] for e in stub.delivered if e["kind"] == "experiment"]


def ran(stub, body: str) -> subprocess.CompletedProcess[str]:
    """A process of its own that has opened the experiment ``s``."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + body, stub.url],
        capture_output=True, check=False, text=True, timeout=60,
    )  # fmt: skip


def test_a_run_is_running_then_its_metrics_then_done(make, stub):
    experiment = make().experiment("s")
    with experiment.run():
        for n in range(1200):
            experiment.metric("loss", n, step=n)
    told = [e["kind"] for e in stub.delivered]
    assert told == ["experiment"] + ["metric"] * 1200 + ["experiment"]
    assert statuses(stub) == ["running", "done"]


@pytest.mark.acceptance(158)
def test_an_error_is_told_and_goes_on(make, stub):
    experiment = make().experiment("s")
    mine = RuntimeError("out of memory")
    with pytest.raises(RuntimeError) as caught, experiment.run():
        raise mine
    assert caught.value is mine
    assert statuses(stub) == ["running", "error"]
    error = stub.delivered[-1]
    assert error["error_name"] == "RuntimeError"
    assert "out of memory" in error["error_detail"]
    assert "Traceback" in error["error_detail"]


@pytest.mark.acceptance(159)
def test_a_long_detail_is_cut_to_8000(make, stub):
    experiment = make().experiment("s")
    with pytest.raises(ValueError), experiment.run():
        raise ValueError("x" * 100_000 + " the end")
    error = stub.delivered[-1]
    assert error["status"] == "error"
    assert len(error["error_detail"]) == 8000
    assert error["error_detail"].rstrip().endswith("the end")


@pytest.mark.acceptance(160)
def test_leaving_a_run_with_the_server_down(make, stub, caplog):
    experiment = make(max_retries=1).experiment("s")
    stub.status = 503
    with experiment.run():
        experiment.metric("loss", 0.5, step=0)
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "incomplete after experiment context exit" in warnings[0].getMessage()
    assert len(stub.writes) == 3 * 4  # it tried, and tried three times more
    assert experiment.flush().pending_metrics == 1  # the first failure that counts, of two
    stub.status = 200
    result = experiment.flush_or_raise()
    assert (result.delivered_metrics, result.delivered_statuses) == (1, 2)


def test_leaving_a_run_does_not_drop_what_is_refused(make, stub):
    experiment = make().experiment("s")
    stub.status = 400
    with experiment.run():
        experiment.metric("loss", 0.5, step=0)
    stub.status = 200
    assert experiment.flush().delivered_metrics == 1
    assert statuses(stub) == ["running", "done"]


@pytest.mark.acceptance(161)
def test_start_and_done_do_not_flush(make, stub):
    experiment = make().experiment("s")
    experiment.start()
    experiment.done()
    assert stub.writes == []
    assert experiment.flush().delivered_statuses == 2
    assert statuses(stub) == ["running", "done"]


@pytest.mark.acceptance(162)
def test_a_metric_after_done_comes_before_the_final_status(make, stub):
    experiment = make().experiment("s")
    experiment.start()
    experiment.metric("loss", 1, step=1)
    experiment.done()
    experiment.metric("loss", 2, step=2)
    assert experiment.flush_or_raise().delivered_statuses == 2
    assert [e.get("status") or e["step"] for e in stub.delivered] == ["running", 1, 2, "done"]
    assert experiment.flush().delivered_statuses == 0


@pytest.mark.acceptance(162)
def test_a_metric_after_a_final_status_that_was_told_reopens_the_run(make, stub):
    experiment = make().experiment("s")
    experiment.start()
    experiment.done()
    experiment.flush_or_raise()
    stub.delivered.clear()
    experiment.metric("loss", 2, step=2)
    experiment.metric("loss", 3, step=3)
    assert experiment.flush_or_raise().delivered_statuses == 2
    assert [e.get("status") or e["step"] for e in stub.delivered] == ["running", 2, 3, "done"]
    assert experiment.flush().delivered_statuses == 0


def test_a_second_run_keeps_the_end_of_the_first(make, stub):
    experiment = make().experiment("s")
    for step in (1, 2):
        experiment.start()
        experiment.metric("loss", 1, step=step)
        experiment.done()
    experiment.flush_or_raise()
    told = [e.get("status") or e["step"] for e in stub.delivered]
    assert told == ["running", 1, "done", "running", 2, "done"]


@pytest.mark.acceptance(163)
def test_one_active_run(make):
    collector = make()
    first, second = collector.experiment("first"), collector.experiment("second")
    with first.run():
        with pytest.raises(MetricsCollectorError, match=r"'second'.*'first'"), second.run():
            pass
        assert not second.started
    with second.run():
        pass
    with make().experiment("elsewhere").run(), collector.experiment("third").run():
        pass


@pytest.mark.acceptance(164)
def test_an_uncaught_exception_is_told_and_still_printed(stub):
    done = ran(stub, "experiment.start()\nexperiment.metric('m', 1, 0)\nraise KeyError('gone')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "KeyError: 'gone'" in done.stderr
    assert statuses(stub) == ["running", "error"]
    assert stub.delivered[-1]["error_name"] == "KeyError"


@pytest.mark.acceptance(164)
def test_a_normal_exit_without_done_is_done(stub):
    done = ran(stub, "experiment.start()\nexperiment.metric('m', 1, step=0)")
    assert (done.returncode, done.stderr) == (0, "")
    assert statuses(stub) == ["running", "done"]


@pytest.mark.acceptance(164)
def test_hooks_are_gone_after_done(make):
    experiment = make().experiment("s")
    before, count = sys.excepthook, atexit._ncallbacks()
    experiment.start()
    assert sys.excepthook is not before
    assert atexit._ncallbacks() == count + 1
    experiment.done()
    assert sys.excepthook is before
    # An unregistered callback leaves an empty place behind: what counts is that it is not called.
    experiment.start()
    experiment.done()
    assert sys.excepthook is before


@pytest.mark.acceptance(165)
def test_without_hooks_the_process_is_left_alone(make, stub):
    experiment = make().experiment("s")
    before, count = sys.excepthook, atexit._ncallbacks()
    with experiment.run(install_hooks=False):
        experiment.metric("loss", 1, step=0)
        assert sys.excepthook is before
        assert atexit._ncallbacks() == count
    assert sys.excepthook is before
    assert atexit._ncallbacks() == count
    assert statuses(stub) == ["running", "done"]


def test_what_nobody_flushed_is_delivered_at_exit_without_hooks(stub):
    done = ran(stub, "experiment.metric('m', 1, step=0)")
    assert (done.returncode, done.stderr) == (0, "")
    assert [e["name"] for e in stub.delivered] == ["m"]


def test_sigterm_delivers_what_waits(stub):
    ended = ran(
        stub,
        "import os\nexperiment.metric('m', 1, 0)\nos.kill(os.getpid(), 15)",
    )
    assert ended.returncode == -15
    assert [e["name"] for e in stub.delivered] == ["m"]


def test_sigterm_in_the_middle_of_a_flush_ends_the_process(stub):
    stub.gate.clear()
    ended = ran(
        stub,
        "import os, threading\nexperiment.metric('m', 1, 0)\n"
        "threading.Timer(0.3, os.kill, (os.getpid(), 15)).start()\nexperiment.flush()",
    )
    stub.gate.set()
    assert ended.returncode == -15
    assert "were being sent at the end" in ended.stderr


def test_a_file_is_complete_at_exit(tmp_path: Path):
    code = (
        "import sys\nfrom callmeter.compat.syvain import JsonlCollector\n"
        "JsonlCollector(sys.argv[1]).experiment('s').metric('m', 1, step=0)"
    )
    path = tmp_path / "m.jsonl"
    subprocess.run([sys.executable, "-c", code, path], check=True, timeout=60)
    assert [line.split(b'"')[3] for line in path.read_bytes().splitlines()] == [
        b"experiment",
        b"metric",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_sends_its_own_and_nothing_of_the_parent(stub):
    done = ran(
        stub,
        "import os\n"
        "experiment.metric('parent', 1, step=0)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    experiment.metric('child', 1, step=0)\n"
        "    experiment.flush_or_raise()\n"
        "    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "experiment.flush_or_raise()\n",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(e["name"] for e in stub.delivered) == ["child", "parent"]
    sources = {r.headers["idempotency-key"].partition(":")[0] for r in stub.writes}
    assert len(sources) == 2


def test_a_file_that_cannot_be_written_is_pending(tmp_path: Path):
    collector = JsonlCollector(tmp_path / "m.jsonl", flush_delay_seconds=3600)
    experiment = collector.experiment("s")
    collector.path.unlink()
    collector.path.mkdir()
    experiment.metric("m", 1, step=0)
    assert experiment.flush().pending_metrics == 1
    collector.path.rmdir()
    assert experiment.flush_or_raise().delivered_metrics == 1

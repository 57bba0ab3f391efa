"""Forked and spawned children, with real processes: each delivers its own, once."""

from collections import Counter
from pathlib import Path

import orjson
import pytest

from callmeter.schema.envelope import split_envelopes, split_lines
from support.metering_programs import all_once, clean_ends, run_program, stored


def test_a_durable_parent_and_its_forked_children_keep_a_spool_each(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        """
        start(durable=True, spool_dir="spool", sync_interval_s=0.02); emit('before')
        callmeter.flush()
        pids = []
        for n in range(5):
            pid = os.fork()
            if pid == 0:
                emit(f"child{n}-", 20)
                sys.exit(0)
            pids.append(pid)
        emit('parent', 20)
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 5
        """,
    )
    headers, names = stored(tmp_path)
    tags = ["parent", *(f"child{n}-" for n in range(5))]
    assert names == all_once("before") + all_once(*tags, count=20)
    assert clean_ends(headers) == 6
    assert list((tmp_path / "spool").iterdir()) == []


def test_fork_parent_and_child_each_deliver_their_own(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        """
        start(); emit('before')
        pid = os.fork()
        if pid == 0:
            emit('child')
            sys.exit(0)
        emit('parent')
        assert os.waitpid(pid, 0)[1] == 0
        """,
    )
    headers, names = stored(tmp_path)
    assert names == all_once("before", "parent", "child")
    assert len({header.source for header in headers}) == 2
    assert clean_ends(headers) == 2


def test_fork_while_the_thread_works_and_locks_are_held(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        """
        callmeter.init("jsonl:calls.jsonl", flush_delay_s=0.0)
        stop = threading.Event()
        def busy():
            i = 0
            while not stop.is_set() and i < 20000:
                callmeter.metric("noise", 1.0); i += 1
        threads = [threading.Thread(target=busy) for _ in range(3)]
        for t in threads: t.start()
        pids = []
        for n in range(10):
            pid = os.fork()
            if pid == 0:
                emit(f"child{n}-", 20)
                assert callmeter.flush(20.0).ok
                callmeter.close()
                os._exit(0)
            pids.append(pid)
        stop.set()
        for t in threads: t.join()
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 10
        """,
    )
    headers, names = stored(tmp_path)
    names.pop("noise", None)
    assert names == all_once(*(f"child{n}-" for n in range(10)), count=20)
    assert len({header.source for header in headers}) == 11


def test_a_call_open_at_the_fork_is_the_parents(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        """
        start()
        with callmeter.generation("outer", model="m"):
            pid = os.fork()
            with callmeter.generation("inner", model="m"):
                pass
        if pid == 0:
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        """,
    )
    calls = [
        orjson.loads(line)
        for data in split_envelopes((tmp_path / "calls.jsonl").read_bytes())
        for line in split_lines(data)[1:]
    ]
    ends = [event for event in calls if event["kind"] == "call_end"]
    assert Counter(event["name"] for event in ends) == {"outer": 1, "inner": 2}
    assert len({event["trace_id"] for event in ends}) == 1
    (outer,) = (event for event in ends if event["name"] == "outer")
    parents = {event["parent_span_id"] for event in ends if event["name"] == "inner"}
    assert parents == {outer["call_id"].replace("-", "")[16:]}


def test_a_child_that_never_meters_leaves_no_trace(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        """
        start(); emit('a')
        pid = os.fork()
        if pid == 0:
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        """,
    )
    headers, names = stored(tmp_path)
    assert names == all_once("a")
    assert len({header.source for header in headers}) == 1


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(tmp_path: Path, method: str) -> None:
    run_program(
        tmp_path,
        f"""
        import multiprocessing
        def work(n):
            if {method!r} == "spawn":
                start()
            emit(f"w{{n}}-")
        if __name__ == "__main__":
            start(); emit("main")
            context = multiprocessing.get_context({method!r})
            workers = [context.Process(target=work, args=(n,)) for n in range(3)]
            for w in workers: w.start()
            for w in workers: w.join()
            assert [w.exitcode for w in workers] == [0, 0, 0]
        """,
    )
    headers, names = stored(tmp_path)
    assert names == all_once("main", "w0-", "w1-", "w2-")
    assert clean_ends(headers) == 4

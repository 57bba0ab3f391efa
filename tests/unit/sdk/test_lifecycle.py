"""Fork, exit, exceptions and signals, each with real processes: all of it, once, and no hang."""

import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import orjson
import pytest

from callmeter.schema.envelope import Header, decode_header, split_envelopes, split_lines

#: Every child is waited for no longer than this; none comes near it.
PATIENCE_S = 60


def run(tmp_path: Path, program: str, *, code: int = 0, **environ: str) -> str:
    """Run a program that meters into ``calls.jsonl``; its output."""
    script = tmp_path / "program.py"
    preamble = """
        import os, signal, sys, threading, time
        import callmeter
        def start(**settings):
            return callmeter.init("jsonl:calls.jsonl", flush_delay_s=30.0, **settings)
        def emit(tag, count=100):
            for i in range(count):
                callmeter.metric(f"{tag}{i}", 1.0)
    """
    script.write_text(textwrap.dedent(preamble) + textwrap.dedent(program))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def stored(tmp_path: Path) -> tuple[list[Header], Counter[str]]:
    """Headers and how often each metric came."""
    headers, names = [], Counter[str]()
    for data in split_envelopes((tmp_path / "calls.jsonl").read_bytes()):
        lines = split_lines(data)
        headers.append(decode_header(lines[0]))
        events = [orjson.loads(line) for line in lines[1:]]
        names.update(e["name"] for e in events if e["kind"] == "metric")
    return headers, names


def all_once(*tags: str, count: int = 100) -> Counter[str]:
    return Counter({f"{tag}{i}": 1 for tag in tags for i in range(count)})


def clean_ends(headers: list[Header]) -> int:
    return sum(header.last for header in headers)


def test_a_normal_exit_delivers_everything(tmp_path: Path) -> None:
    run(tmp_path, "start(); emit('a')")
    headers, names = stored(tmp_path)
    assert names == all_once("a")
    assert clean_ends(headers) == 1


def test_an_uncaught_exception_delivers_everything(tmp_path: Path) -> None:
    output = run(tmp_path, "start(); emit('a'); raise RuntimeError('boom')", code=1)
    headers, names = stored(tmp_path)
    assert names == all_once("a")
    assert clean_ends(headers) == 1
    assert "RuntimeError: boom" in output


def test_sys_exit_in_a_call_delivers_everything(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        start(); emit('a')
        with callmeter.generation("last", model="m"):
            sys.exit(3)
        """,
        code=3,
    )
    assert stored(tmp_path)[1] == all_once("a")


def test_sigterm_delivers_everything_and_still_kills(tmp_path: Path) -> None:
    run(
        tmp_path,
        "start(); emit('a'); os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
        code=-signal.SIGTERM,
    )
    headers, names = stored(tmp_path)
    assert names == all_once("a")
    assert clean_ends(headers) == 1


def test_sigterm_while_a_flush_waits_neither_hangs_nor_doubles(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        start(); emit('a')
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        while True:
            callmeter.flush()
        """,
        code=-signal.SIGTERM,
    )
    assert stored(tmp_path)[1] == all_once("a")


def test_sigint_delivers_everything(tmp_path: Path) -> None:
    run(
        tmp_path,
        "start(); emit('a'); os.kill(os.getpid(), signal.SIGINT); time.sleep(60)",
        code=-signal.SIGINT,
    )
    assert stored(tmp_path)[1] == all_once("a")


def test_a_hosts_own_handler_stays(tmp_path: Path) -> None:
    output = run(
        tmp_path,
        """
        def mine(number, frame):
            print("mine")
            sys.exit(7)
        signal.signal(signal.SIGTERM, mine)
        start(); emit('a')
        assert signal.getsignal(signal.SIGTERM) is mine
        os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)
        """,
        code=7,
    )
    assert "mine" in output
    assert stored(tmp_path)[1] == all_once("a")


def test_a_host_that_puts_the_default_back_to_die_by_it(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        def mine(number, frame):
            emit('late')
            signal.signal(number, before)
            signal.raise_signal(number)
        before = signal.signal(signal.SIGTERM, mine)
        start(); emit('a')
        os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)
        """,
        code=-signal.SIGTERM,
    )
    headers, names = stored(tmp_path)
    assert names == all_once("a", "late")
    assert clean_ends(headers) == 1


def test_a_durable_parent_and_its_forked_children_keep_a_spool_each(tmp_path: Path) -> None:
    run(
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


def test_a_main_that_has_a_running_loop(tmp_path: Path) -> None:
    """As in a notebook: init, calls, flush and close inside a loop that goes on."""
    output = run(
        tmp_path,
        """
        import asyncio
        async def main():
            start()
            async with callmeter.generation("cell", model="m"):
                await asyncio.sleep(0)
            emit('a', 10)
            assert callmeter.flush().ok
            start()
            emit('b', 10)
            callmeter.close()
            callmeter.metric("too late", 1.0)
            await asyncio.sleep(0)
        asyncio.run(main())
        """,
    )
    assert stored(tmp_path)[1] == all_once("a", "b", count=10)
    assert output == ""


def test_signals_are_left_alone_when_told(tmp_path: Path) -> None:
    run(
        tmp_path,
        "start(handle_signals=False); "
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL; emit('a')",
    )
    assert stored(tmp_path)[1] == all_once("a")


def test_a_backend_that_hangs_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    output = run(
        tmp_path,
        """
        import atexit, socket
        atexit.register(lambda: print(callmeter.stats().dropped))  # runs after callmeter's own
        server = socket.socket(); server.bind(("127.0.0.1", 0)); server.listen()
        callmeter.init(f"http://127.0.0.1:{server.getsockname()[1]}", shutdown_timeout_s=0.5)
        emit('a')
        """,
    )
    assert "{'shutdown': 100}" in output
    assert "events were dropped: 100 shutdown" in output


def test_fork_parent_and_child_each_deliver_their_own(tmp_path: Path) -> None:
    run(
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
    run(
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
    run(
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
    run(
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
    run(
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


def test_event_loops_come_and_go(tmp_path: Path) -> None:
    output = run(
        tmp_path,
        """
        import asyncio
        start()
        async def work(tag):
            async with callmeter.generation(tag, model="m"):
                await asyncio.sleep(0)
            emit(tag, 10)
        for tag in ("one", "two"):
            asyncio.run(work(tag))
        """,
    )
    assert stored(tmp_path)[1] == all_once("one", "two", count=10)
    assert output == ""


def test_threads_that_outlive_main_are_heard(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        start()
        def late():
            time.sleep(0.2)
            emit('late')
        threading.Thread(target=late).start()
        """,
    )
    assert stored(tmp_path)[1] == all_once("late")


def test_init_again_flushes_and_replaces(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        start(); emit('old')
        start(project="new"); emit('new')
        """,
    )
    headers, names = stored(tmp_path)
    assert names == all_once("old", "new")
    assert clean_ends(headers) == 2
    assert {header.project for header in headers} == {"default", "new"}


def test_sigterm_amid_a_flush_on_the_same_thread_does_not_hang(tmp_path):
    # The handler closes the client while the step it interrupted holds its turn: it gives up after
    # the shutdown time, and the process ends by the signal.
    run(
        tmp_path,
        """
        from callmeter.transports.memory import MemoryTransport
        class Interrupting(MemoryTransport):
            def send(self, envelope):
                os.kill(os.getpid(), signal.SIGTERM)
                return super().send(envelope)
        settings = callmeter.Settings(shutdown_timeout_s=0.5)
        client = callmeter.Client(settings, transport=Interrupting(), threaded=False)
        client.metric("a", 1.0)
        client.flush()
        """,
        code=-signal.SIGTERM,
    )

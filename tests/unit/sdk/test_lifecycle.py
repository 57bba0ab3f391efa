"""Exit, exceptions and signals, each with real processes: all of it, once, and no hang."""

import signal
from pathlib import Path

from support.metering_programs import all_once, clean_ends, run_program, stored


def test_a_normal_exit_delivers_everything(tmp_path: Path) -> None:
    run_program(tmp_path, "start(); emit('a')")
    headers, names = stored(tmp_path)
    assert names == all_once("a")
    assert clean_ends(headers) == 1


def test_an_uncaught_exception_delivers_everything(tmp_path: Path) -> None:
    output = run_program(tmp_path, "start(); emit('a'); raise RuntimeError('boom')", code=1)
    headers, names = stored(tmp_path)
    assert names == all_once("a")
    assert clean_ends(headers) == 1
    assert "RuntimeError: boom" in output


def test_sys_exit_in_a_call_delivers_everything(tmp_path: Path) -> None:
    run_program(
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
    run_program(
        tmp_path,
        "start(); emit('a'); os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
        code=-signal.SIGTERM,
    )
    headers, names = stored(tmp_path)
    assert names == all_once("a")
    assert clean_ends(headers) == 1


def test_sigterm_while_a_flush_waits_neither_hangs_nor_doubles(tmp_path: Path) -> None:
    run_program(
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
    run_program(
        tmp_path,
        "start(); emit('a'); os.kill(os.getpid(), signal.SIGINT); time.sleep(60)",
        code=-signal.SIGINT,
    )
    assert stored(tmp_path)[1] == all_once("a")


def test_a_hosts_own_handler_stays(tmp_path: Path) -> None:
    output = run_program(
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
    run_program(
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


def test_a_main_that_has_a_running_loop(tmp_path: Path) -> None:
    """As in a notebook: init, calls, flush and close inside a loop that goes on."""
    output = run_program(
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
    run_program(
        tmp_path,
        "start(handle_signals=False); "
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL; emit('a')",
    )
    assert stored(tmp_path)[1] == all_once("a")


def test_a_backend_that_hangs_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    output = run_program(
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


def test_event_loops_come_and_go(tmp_path: Path) -> None:
    output = run_program(
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
    run_program(
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
    run_program(
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
    # the shutdown time, says so, and the process ends by the signal.
    output = run_program(
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
    assert output == "the transport did not let go in time; what is pending is lost\n"

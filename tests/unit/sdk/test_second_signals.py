"""A signal while a close is under way: what it delivers is delivered, and it stays bounded."""

import signal
import textwrap
from pathlib import Path

import pytest

from support.metering_programs import all_once, clean_ends, run_program, stored

#: A client of a backend that takes nothing before ``may_take``. ``meanwhile`` sends signals to this
#: process, one after the other, once a close waits for that backend, and then does something.
PREAMBLE = """
    from callmeter.sdk import lifecycle
    from callmeter.transports.jsonl import JsonlTransport

    lifecycle.INSIST_S = {insist_s}
    may_take, asked, came = threading.Event(), threading.Event(), threading.Event()
    class Slow(JsonlTransport):
        def send(self, envelope):
            asked.set()
            return may_take.is_set() and super().send(envelope)

    def meanwhile(*numbers, then=may_take.set):
        def run():
            assert asked.wait(30)
            for number in numbers:
                came.clear()
                os.kill(os.getpid(), number)
                assert came.wait(30)
            then()
        threading.Thread(target=run, daemon=True).start()

    def listen():
        while os.read(reading, 1):
            came.set()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    threading.Thread(target=listen, daemon=True).start()

    settings = callmeter.Settings(flush_delay_s=30.0, shutdown_timeout_s={shutdown_s})
    one = callmeter.Client(settings, transport=Slow("calls.jsonl"))
    for i in range(100):
        one.metric(f"a{{i}}", 1.0)
"""


def run(
    tmp_path: Path, program: str, code: int, *, shutdown_s: float = 600.0, insist_s: float = 600.0
) -> str:
    whole = PREAMBLE.format(shutdown_s=shutdown_s, insist_s=insist_s) + textwrap.indent(
        textwrap.dedent(program), "    "
    )
    return run_program(tmp_path, whole, code=code)


def all_there(tmp_path: Path) -> bool:
    headers, names = stored(tmp_path)
    return names == all_once("a") and clean_ends(headers) == 1


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("meanwhile(signal.SIGTERM); os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("meanwhile(signal.SIGTERM, signal.SIGTERM); sys.exit(0)", -signal.SIGTERM),
        ("meanwhile(signal.SIGTERM); one.close(); print('goes on')", -signal.SIGTERM),
        ("meanwhile(signal.SIGINT); os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT),
        ("meanwhile(signal.SIGINT); sys.exit(3)", 3),
        ("meanwhile(signal.SIGTERM); os.kill(os.getpid(), signal.SIGINT)", -signal.SIGTERM),
    ],
    ids=["TERM TERM", "exit TERM TERM", "close TERM", "INT INT", "exit INT", "INT TERM"],
)
def test_it_loses_nothing(tmp_path: Path, program: str, code: int) -> None:
    output = run(tmp_path, program, code)
    assert all_there(tmp_path)
    assert "goes on" not in output


def test_sigterm_waits_for_a_close_on_another_thread(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        meanwhile(signal.SIGTERM)
        threading.Thread(target=one.close, daemon=True).start()
        time.sleep(60)
        """,
        -signal.SIGTERM,
    )
    assert all_there(tmp_path)


def test_a_hosts_handler_that_exits_again_loses_nothing(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
        meanwhile(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        """,
        7,
    )
    assert all_there(tmp_path)


def test_other_clients_are_closed_too(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        two = callmeter.init("jsonl:two.jsonl", flush_delay_s=30.0)
        emit("b")
        meanwhile(signal.SIGTERM)
        one.close()
        """,
        -signal.SIGTERM,
    )
    assert all_there(tmp_path)
    (tmp_path / "two.jsonl").rename(tmp_path / "calls.jsonl")
    assert stored(tmp_path)[1] == all_once("b")


def test_a_backend_that_takes_nothing_does_not_hold_up_the_end(tmp_path: Path) -> None:
    program = "meanwhile(signal.SIGTERM, then=bool); os.kill(os.getpid(), signal.SIGTERM)"
    output = run(tmp_path, program, -signal.SIGTERM, shutdown_s=1.0)
    assert "events were dropped: 100 shutdown" in output or "101 shutdown" in output


def test_insisting_shortens_a_close_that_waits_in_vain(tmp_path: Path) -> None:
    program = "meanwhile(signal.SIGINT, then=bool); sys.exit(3)"
    output = run(tmp_path, program, 3, insist_s=0.1)
    assert "events were dropped: 100 shutdown" in output or "101 shutdown" in output

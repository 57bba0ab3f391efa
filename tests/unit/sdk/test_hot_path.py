"""What every call does: the same compiled and in Python (test_hot_twins runs this over both)."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

import callmeter
from callmeter.clock import ManualClock
from callmeter.sdk.call import NO_CALL, Call
from callmeter.sdk.context import FRAME, NOWHERE
from callmeter.sdk.hot import Ended
from callmeter.sdk.intake import Intake

SETTINGS = callmeter.Settings(url="noop:")


@pytest.fixture
def client() -> Iterator[callmeter.Client]:
    made = callmeter.Client(SETTINGS, threaded=False)
    yield made
    made.close()


def intake_of(client: callmeter.Client) -> Intake:
    assert client.intake is not None
    return client.intake


def one(client: callmeter.Client) -> Call:
    with client.generation("answer", model="m", user="u") as call:
        call.usage(input=3, output=4, cache_read=1)
        call.set(finish_reason="stop")
        call.set(route="a")
    return call


def test_what_is_queued_is_what_the_call_was(client: callmeter.Client) -> None:
    call = one(client)
    item = intake_of(client).queue[-1]
    assert type(item) is Ended
    for name in ("name", "fields", "later", "units", "extra", "root", "span", "parent", "labels",
                 "anchor", "start_ns", "end_ns"):  # fmt: skip
        assert getattr(item, name) == getattr(call, name), name
    assert (item.name, item.units, item.extra, item.root) == ("answer", (3, 4, {"cache_read": 1}),
                                                             None, None)  # fmt: skip
    assert item.fields == {"model": "m", "user": "u", "operation": "chat"}
    assert item.later == {"finish_reason": "stop", "route": "a"}


def test_what_is_said_after_the_end_is_not_heard(client: callmeter.Client) -> None:
    call = client.generation("answer", model="m")
    with call:
        pass
    call.usage(1, 2)
    call.set(late=True)
    call.failed("late")
    item = intake_of(client).queue[-1]
    assert (item.units, item.later, item.extra) == (None, None, None)


def test_the_collector_does_not_walk_what_is_queued(client: callmeter.Client) -> None:
    one(client)
    assert not gc.is_tracked(intake_of(client).queue[-1])


def test_the_clock_is_that_of_perf_counter(client: callmeter.Client) -> None:
    before = time.perf_counter_ns()
    call = client.generation(model="m")
    with call:
        amid = time.perf_counter_ns()
    after = time.perf_counter_ns()
    assert before <= call.start_ns <= amid <= call.end_ns <= after


def test_a_clock_of_the_tests_is_obeyed() -> None:
    clock = ManualClock()
    client = callmeter.Client(SETTINGS, clock=clock, threaded=False)
    with client.generation(model="m") as call:
        clock.advance(1.5)
    assert call.end_ns - call.start_ns == 1_500_000_000
    client.close()


def test_a_clock_that_is_put_in_later_is_read(client: callmeter.Client) -> None:
    intake_of(client).mono = iter((5, 9)).__next__
    call = one(client)
    assert (call.start_ns, call.end_ns) == (5, 9)


def test_random_bits(client: callmeter.Client) -> None:
    intake = intake_of(client)
    for count in (1, 32, 62):
        drawn = [intake.bits(count) for _ in range(2_000)]
        assert max(drawn) < 2**count
        for bit in range(count):  # 1,000 expected, 22 the deviation: 8 of them
            assert 820 < sum(number >> bit & 1 for number in drawn) < 1_180
    assert len({intake.bits(62) for _ in range(10_000)}) == 10_000


def test_every_intake_has_bits_of_its_own(client: callmeter.Client) -> None:
    other = callmeter.Client(SETTINGS, threaded=False)
    assert not {intake_of(client).bits(62) for _ in range(100)} & {
        intake_of(other).bits(62) for _ in range(100)
    }
    other.close()


def test_a_forked_child_has_bits_of_its_own() -> None:
    program = """
import os, callmeter
callmeter.init("noop:")
callmeter.generation(model="m").start().finish()
read, write = os.pipe()
child = os.fork()
call = callmeter.generation(model="m").start()
if child == 0:
    os.write(write, call.span_id.encode())
    os._exit(0)
os.waitpid(child, 0)
assert os.read(read, 16).decode() != call.span_id
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_before_its_begin_and_its_end_a_call_has_no_times(client: callmeter.Client) -> None:
    call = client.generation(model="m")
    for name in ("span", "labels", "anchor", "start_ns", "end_ns", "sampled"):
        assert not hasattr(call, name), name
    with pytest.raises(AttributeError):
        _ = call.id
    with call:
        assert call.id
        assert not hasattr(call, "end_ns")
    assert call.end_ns >= call.start_ns


def test_a_call_of_no_client_is_an_error_and_no_crash() -> None:
    for use in (Call().__enter__, Call().finish, Call().start, lambda: Call().id):
        with pytest.raises(AttributeError):
            use()


async def test_no_call_is_nothing_in_every_way() -> None:
    with NO_CALL as call:
        assert FRAME.get() is NOWHERE
    async with NO_CALL as again:
        assert FRAME.get() is NOWHERE
    assert call is again is NO_CALL


def test_ended_twice_counts_once_and_does_no_harm(client: callmeter.Client) -> None:
    call = one(client)
    call.finish()
    call.__exit__(None, None, None)
    assert len(intake_of(client).queue) == 1


def test_ended_in_another_context_it_counts_and_leaves_that_one_alone(
    client: callmeter.Client,
) -> None:
    call = client.generation(model="m")
    contextvars.copy_context().run(call.__enter__)
    assert FRAME.get() is NOWHERE
    with client.generation("around", model="m") as around:
        call.__exit__(None, None, None)
        assert FRAME.get() is around
    assert len(intake_of(client).queue) == 2


def test_ended_by_another_thread(client: callmeter.Client) -> None:
    call = client.generation(model="m")
    contextvars.copy_context().run(call.__enter__)
    thread = threading.Thread(target=call.finish)
    thread.start()
    thread.join()
    assert list(intake_of(client).open) == []
    assert len(intake_of(client).queue) == 1


async def test_ended_by_another_task(client: callmeter.Client) -> None:
    call = client.generation(model="m")
    await asyncio.create_task(call.__aenter__())
    await asyncio.create_task(call.__aexit__(None, None, None))
    assert FRAME.get() is NOWHERE
    assert len(intake_of(client).queue) == 1


async def test_the_async_form_is_awaited_as_coroutines_are(client: callmeter.Client) -> None:
    async with contextlib.AsyncExitStack() as stack:
        call = await stack.enter_async_context(client.generation(model="m"))
        assert FRAME.get() is call
    step = call.__aexit__(None, None, None)
    assert asyncio.iscoroutine(step)
    assert await step is None
    with pytest.raises(RuntimeError, match="already awaited"):
        await step
    call.__aenter__().close()
    assert len(intake_of(client).queue) == 1


async def test_a_task_that_is_cancelled_before_it_began_begins_no_call(
    client: callmeter.Client,
) -> None:
    task = asyncio.create_task(client.generation(model="m").__aenter__())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(intake_of(client).open) == []


async def test_under_a_debugger_it_is_the_same(client: callmeter.Client) -> None:
    before = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        async with client.generation(model="m") as call:
            assert FRAME.get() is call
    finally:
        sys.settrace(before)
    assert FRAME.get() is NOWHERE
    assert len(intake_of(client).queue) == 1


def test_an_exception_is_noted_and_goes_on(client: callmeter.Client) -> None:
    with pytest.raises(ZeroDivisionError), client.generation(model="m"):
        _ = 1 // 0
    assert intake_of(client).queue[-1].extra["error"][1].endswith("ZeroDivisionError")


async def test_a_cancelled_call_is_noted_and_goes_on(client: callmeter.Client) -> None:
    async def waits() -> None:
        async with client.generation(model="m"):
            await asyncio.Event().wait()

    task = asyncio.create_task(waits())
    while not intake_of(client).open:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert intake_of(client).queue[-1].extra["error"][0] == "cancelled"


def test_the_oldest_open_call_comes_first(client: callmeter.Client) -> None:
    calls = [client.generation(model="m").start() for _ in range(5)]
    calls.pop(2).finish()
    assert list(intake_of(client).open) == calls
    for call in calls:
        call.finish()


def test_open_calls_are_listed_while_they_begin_and_end(client: callmeter.Client) -> None:
    intake, done = intake_of(client), threading.Event()
    trouble: list[BaseException] = []

    def work() -> None:
        try:
            while not done.is_set():
                with client.generation(model="m"), client.generation(model="m"):
                    pass
        except BaseException as exc:  # noqa: BLE001  # looked at below
            trouble.append(exc)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3_000):
        for call in list(intake.open):
            assert call.fields["model"] == "m"
            assert call.span >= 0
    done.set()
    for thread in threads:
        thread.join()
    assert trouble == []
    assert list(intake.open) == []


def test_nothing_leaks(client: callmeter.Client) -> None:
    intake = intake_of(client)

    async def some(count: int) -> None:
        for _ in range(count):
            one(client)
            async with client.generation(model="m", tags={"a": "b"}) as outer:
                client.generation(model="m", parent=outer).start().finish(ValueError("x"))

    def held() -> tuple[int, int]:
        asyncio.run(some(300))
        intake.queue.clear()
        gc.collect()
        return sys.getallocatedblocks(), sys.getrefcount(intake)

    held()
    blocks, references = held()
    asyncio.run(some(3_000))
    more_blocks, more_references = held()
    assert more_references == references
    assert more_blocks - blocks < 1_000  # 9,000 calls, ten blocks each and more


def test_a_call_that_never_ends_goes_with_its_client(client: callmeter.Client) -> None:
    class Mark:
        pass

    def abandon() -> weakref.ref[Mark]:
        call = client.generation(model="m")
        call.extra = {"inputs": Mark()}
        contextvars.copy_context().run(call.__enter__)
        return weakref.ref(call.extra["inputs"])

    mark = abandon()
    gc.collect()
    assert mark() is not None
    intake_of(client).disown()
    gc.collect()
    assert mark() is None

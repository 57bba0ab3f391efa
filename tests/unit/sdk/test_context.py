"""Parents, traces, tags, phases and programs: the inner one wins, tasks and threads never mix."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import callmeter
from callmeter.testing import Capture, capture


def by_name(captured: Capture) -> dict[str, dict]:
    return {event["name"]: event for event in captured.calls}


def test_parents_and_traces(captured: Capture) -> None:
    with callmeter.generation("a", model="m") as a:
        with callmeter.generation("b", model="m"):
            pass
        with callmeter.generation("c", model="m") as c, callmeter.generation("d", model="m"):
            pass
    with callmeter.generation("e", model="m") as e:
        pass
    calls = by_name(captured)
    assert "parent_span_id" not in calls["a"]
    assert calls["b"]["parent_span_id"] == calls["c"]["parent_span_id"] == a.span_id
    assert calls["d"]["parent_span_id"] == c.span_id
    assert {calls[n]["trace_id"] for n in "abcd"} == {a.trace_id}
    assert calls["e"]["trace_id"] == e.trace_id != a.trace_id


async def test_concurrent_tasks_do_not_mix(captured: Capture) -> None:
    async def one(user: str) -> None:
        with callmeter.tags(user=user):
            async with callmeter.generation(user, model="m"):
                await asyncio.sleep(0)
                async with callmeter.generation(f"{user}-inner", model="m"):
                    await asyncio.sleep(0)

    await asyncio.gather(*(one(f"u{i}") for i in range(50)))
    calls = by_name(captured)
    for i in range(50):
        outer, inner = calls[f"u{i}"], calls[f"u{i}-inner"]
        assert outer["tags"] == inner["tags"] == {"user": f"u{i}"}
        assert inner["parent_span_id"] == outer["call_id"].replace("-", "")[16:]
        assert inner["trace_id"] == outer["trace_id"]
    assert len({calls[f"u{i}"]["trace_id"] for i in range(50)}) == 50


async def test_a_task_started_inside_a_call_is_its_child(captured: Capture) -> None:
    async def child() -> None:
        async with callmeter.generation("child", model="m"):
            pass

    async with callmeter.generation("parent", model="m") as parent:
        task = asyncio.create_task(child())
    await task  # it ends after its parent
    assert by_name(captured)["child"]["parent_span_id"] == parent.span_id


def test_threads_do_not_mix(captured: Capture) -> None:
    barrier = threading.Barrier(8)

    def one(n: int) -> None:
        with callmeter.phase(f"p{n}"), callmeter.generation(f"t{n}", model="m"):
            barrier.wait()
            with callmeter.generation(f"t{n}-inner", model="m"):
                barrier.wait()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    calls = by_name(captured)
    for n in range(8):
        assert calls[f"t{n}"]["phase"] == calls[f"t{n}-inner"]["phase"] == f"p{n}"
        assert calls[f"t{n}-inner"]["trace_id"] == calls[f"t{n}"]["trace_id"]


def test_a_parent_may_be_handed_over_to_another_thread(captured: Capture) -> None:
    def work(parent: callmeter.Call) -> None:
        with callmeter.generation("child", model="m", parent=parent):
            pass

    with callmeter.tags(team="x"), callmeter.generation("parent", model="m") as parent:
        thread = threading.Thread(target=work, args=(parent,))
        thread.start()
        thread.join()
    child = by_name(captured)["child"]
    assert child["parent_span_id"] == parent.span_id
    assert child["trace_id"] == parent.trace_id
    assert child["tags"] == {"team": "x"}


def test_the_inner_block_wins_and_the_outer_comes_back(captured: Capture) -> None:
    with callmeter.tags(a=1, b=1), callmeter.phase("train"), callmeter.program("p"):
        with (
            callmeter.tags(b=2, c=3),
            callmeter.phase("reward"),
            callmeter.generation("inner", model="m", tags={"c": 4}),
        ):
            pass
        with callmeter.generation("outer", model="m"):
            pass
    with callmeter.generation("outside", model="m"):
        pass
    calls = by_name(captured)
    assert calls["inner"]["tags"] == {"a": "1", "b": "2", "c": "4"}
    assert (calls["inner"]["phase"], calls["inner"]["program"]) == ("reward", "p")
    assert calls["outer"]["tags"] == {"a": "1", "b": "1"}
    assert calls["outer"]["phase"] == "train"
    assert "tags" not in calls["outside"]
    assert "phase" not in calls["outside"]


def test_tags_of_the_client_lie_under_all_others() -> None:
    with capture(tags={"team": "x", "tier": "gold"}) as captured:
        with callmeter.tags(tier="lead"), callmeter.generation(model="m"):
            pass
        (event,) = captured.calls
    assert event["tags"] == {"team": "x", "tier": "lead"}


def test_a_trace_that_began_elsewhere(captured: Capture) -> None:
    remote = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with (
        callmeter.generation("here", model="m", parent=remote),
        callmeter.generation("below", model="m"),
    ):
        pass
    calls = by_name(captured)
    assert calls["here"]["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert calls["here"]["parent_span_id"] == "00f067aa0ba902b7"
    assert calls["below"]["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00-short-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ],
)
def test_a_header_that_is_not_valid_begins_a_new_trace(captured: Capture, header: str) -> None:
    with callmeter.generation(model="m", parent=header) as call:
        pass
    (event,) = captured.calls
    assert event["trace_id"] == call.id.replace("-", "")
    assert "parent_span_id" not in event


@pytest.mark.acceptance(226)
def test_sampling_is_decided_at_the_root_and_children_follow() -> None:
    with capture(sample_rate=0.0) as captured:
        with callmeter.generation("root", model="m"), callmeter.generation("child", model="m"):
            pass
        assert captured.events == []
        assert captured.client.stats().sampled_out == 2
        assert captured.client.stats().accepted == 0


@pytest.mark.acceptance(226)
def test_half_of_the_traces_are_kept_and_none_is_torn() -> None:
    with capture(sample_rate=0.5) as captured:
        for _ in range(400):
            with callmeter.generation("root", model="m"), callmeter.generation("child", model="m"):
                pass
        traces: dict[str, int] = {}
        for event in captured.calls:
            traces[event["trace_id"]] = traces.get(event["trace_id"], 0) + 1
    assert set(traces.values()) == {2}
    assert 100 < len(traces) < 300


def test_an_unsampled_remote_parent_is_followed() -> None:
    with capture() as captured:
        remote = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
        with callmeter.generation(model="m", parent=remote):
            pass
        assert captured.events == []

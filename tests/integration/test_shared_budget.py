"""Producers in processes of their own on one shared budget, over the real embedded pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from urllib.request import urlopen

import pytest

from callmeter.money import format_usd
from support.cli import callmeter, environment
from support.embedded import Pipeline

SPENDER = Path(__file__).parents[1] / "support" / "spender.py"


@contextmanager
def spender(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(SPENDER), *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def set_budget(embedded: Pipeline, project: str, limit: str, *more: object) -> str:
    name = f"b-{project}"
    ran = callmeter(
        "budget", "set", name, "--dir", embedded.directory, "--limit", limit,
        "--scope", f"project={project}", "--action", "stop", *more,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    return name


def status_of(embedded: Pipeline, name: str) -> dict[str, object]:
    with urlopen(f"{embedded.url}/v1/budgets/status?budget={name}", timeout=10) as answer:
        found = json.load(answer)["statuses"]
    return found[0] if found else {"spend_pico": "0"}


def run_all(processes: list[subprocess.Popen[str]]) -> list[dict[str, object]]:
    """Start them together when each is ready, and hear what each has spent."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outs = [process.communicate(timeout=120)[0] for process in processes]
    return [json.loads(out) for out in outs]


def settled(embedded: Pipeline, name: str, usd: Decimal) -> None:
    """The budget's status ends at the true spend, to the pico."""
    pico = int(usd * 10**12)
    embedded.wait(lambda: int(str(status_of(embedded, name)["spend_pico"])) >= pico)
    assert int(str(status_of(embedded, name)["spend_pico"])) == pico


@pytest.mark.acceptance(198)
def test_two_producers_are_limited_on_their_joint_spend(embedded: Pipeline, project: str):
    name = set_budget(embedded, project, "1")
    with ExitStack() as stack:
        # Each alone could spend all of it: 10 calls of 0.10 USD.
        two = [
            stack.enter_context(spender(embedded.url, project, name, "0.10", 1, 0.5))
            for _ in range(2)
        ]
        ended = run_all(two)
    calls = [each["calls"] for each in ended]
    assert all(each["delivered"] for each in ended)
    assert all(0 < n < 10 for n in calls), calls
    # In half a second a status has come: at most the calls under way then are too many.
    assert 10 <= sum(calls) <= 12
    for each in ended:
        (stop,) = each["stops"]
        assert Decimal(stop["spent"]) >= 1
    settled(embedded, name, Decimal("0.10") * sum(calls))


def test_a_budget_is_raised_and_the_fleet_goes_on(embedded: Pipeline, project: str):
    name = set_budget(embedded, project, "0.30")
    with spender(embedded.url, project, name, "0.10", 1, 0.01) as one:
        (ended,) = run_all([one])
    assert ended["calls"] == 3
    settled(embedded, name, Decimal("0.30"))
    with spender(embedded.url, project, name, "0.10", 1, 0.01) as another:
        (ended,) = run_all([another])
    assert ended["calls"] == 0
    ran = callmeter("budget", "raise", name, "--limit", "0.50", "--dir", embedded.directory)
    assert ran.code == 0, ran.err
    with spender(embedded.url, project, name, "0.10", 1, 0.01) as another:
        (ended,) = run_all([another])
    assert ended["calls"] == 2


@pytest.mark.slow
def test_overshoot_of_a_fleet_is_bounded(embedded: Pipeline, project: str):
    """20 processes, 2 calls at a time each, on 10 USD: overshoot ≤ rate × lag + cost in flight.

    The lag is not asserted as a time but taken as it was: from the moment at which the fleet had
    spent 10 USD to the moment at which the last process was stopped.
    """
    processes, threads, usd, pause_s = 20, 2, Decimal("0.01"), 0.2
    name = set_budget(embedded, project, "10")
    with ExitStack() as stack:
        fleet = [
            stack.enter_context(spender(embedded.url, project, name, usd, threads, pause_s))
            for _ in range(processes)
        ]
        ended = run_all(fleet)
    calls = sum(each["calls"] for each in ended)
    spent = usd * calls
    begun_s = min(each["begun"] for each in ended)
    stopped_s = max(stop["at"] for each in ended for stop in each["stops"])
    assert sum(len(each["stops"]) for each in ended) == processes * threads
    in_flight = usd * processes * threads
    # Every worker spends one call a pause and more: no faster than this.
    rate = float(in_flight) / pause_s
    reached_s = begun_s + float(10 / rate)
    lag_s = stopped_s - reached_s
    overshoot = spent - 10
    bound = rate * lag_s + float(in_flight)
    print(
        f"\n{processes} processes x {threads} calls of {usd} USD: spent {spent} of 10 USD in "
        f"{stopped_s - begun_s:.2f} s, overshoot {overshoot} USD <= {rate:.2f} USD/s x "
        f"{lag_s:.2f} s + {in_flight} USD = {bound:.2f} USD"
    )
    assert 0 <= overshoot <= bound
    assert lag_s >= 0
    settled(embedded, name, spent)
    assert format_usd(int(spent * 10**12)) == format_usd(
        int(status_of(embedded, name)["spend_pico"])
    )


def test_the_stream_goes_on_after_its_collector_was_away(tmp_path: Path):
    """A guard that is cut off does what ``on_stale`` says, and follows again when it can."""
    from callmeter.sdk.budget.guard import BudgetGuard
    from callmeter.sdk.budget.limit import BudgetExceeded
    from callmeter.sdk.client import Client
    from callmeter.settings import Settings
    from support.cli import started

    port = _free_port()
    client = Client(Settings(url=f"http://127.0.0.1:{port}", project="p", handle_signals=False))
    strict = BudgetGuard(budget="b", on_stale="stop", client=client)
    lax = BudgetGuard(budget="b", client=client)
    try:
        with pytest.raises(BudgetExceeded) as caught:
            strict.check()
        assert caught.value.limit_type == "stale"
        lax.check()
        with started("up", "--dir", tmp_path / "d", "--port", port) as process:
            assert process.stdout is not None
            process.stdout.readline()
            ran = callmeter(
                "budget", "set", "b", "--limit", "1", "--action", "stop", "--dir", tmp_path / "d"
            )
            assert ran.code == 0, ran.err
            shared = strict.shared
            assert shared is not None
            deadline = time.monotonic() + 30
            while not shared.fresh:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            strict.check()
            process.terminate()
            process.communicate(timeout=60)
    finally:
        client.close(0.0)


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port

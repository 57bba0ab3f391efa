"""What the processors of a running ``callmeter up`` say is in its store a moment later."""

from __future__ import annotations

import callmeter
from callmeter.cli.app import run
from support.embedded import Pipeline


def test_a_crossed_budget_and_an_open_call_are_stored(embedded: Pipeline, project: str) -> None:
    limit = ("--limit", "0.001", "--window", "day", "--scope", f"project={project}")
    name = f"b-{project}"
    assert run(["budget", "set", name, *limit, "--dir", str(embedded.directory)]) == 0
    ask = embedded.queries
    client = callmeter.init(embedded.url, project=project)
    try:
        with callmeter.generation(model="gpt-4o", provider="openai") as call:
            call.cost("0.002")
            call.usage(input=1, output=1)
        callmeter.flush_or_raise()
        embedded.wait(lambda: bool(ask.alerts(rule=name, kind="threshold")))
        embedded.wait(lambda: [b.state for b in ask.budget_status(budget=name)] == ["exceeded"])
        with callmeter.generation(model="gpt-4o", provider="openai"):
            callmeter.flush_or_raise()
            embedded.wait(lambda: [row.open for row in ask.in_flight([], project=project)] == [1])
        callmeter.flush_or_raise()
    finally:
        client.close()
    embedded.wait(lambda: ask.in_flight(project=project) == [])
    (status,) = ask.budget_status(project=project)
    assert (status.budget, status.scope, str(status.limit_usd)) == (
        name, {"project": [project]}, "0.001000000000",
    )  # fmt: skip
    assert {row.rule for row in ask.alerts(project=project)} == {name}

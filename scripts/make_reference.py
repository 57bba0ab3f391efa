#!/usr/bin/env python3
"""Write the reference pages that come from the code into docs/reference.

scripts/make_reference.py            write them
scripts/make_reference.py --check    say which are not as the code would write them
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click

import callmeter.errors
from callmeter.schema import reasons
from callmeter.schema.events import KINDS
from callmeter.schema.jsonschema import GENERATED
from callmeter.schema.topics import TOPICS
from callmeter.settings import settings_page

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
_WIDTH = 100
#: Exit codes and what they say; the tree in callmeter.errors has the errors behind them.
_EXIT_CODES = {
    0: "done",
    1: "the answer is no: not equal, budget exceeded, nothing of that name, a piece that is ill",
    2: "incomplete: a part cannot be verified, or a loss was found",
    64: "wrong usage of a command or an API",
    65: "bad input data",
    69: "a service is not reachable",
    70: "a bug: please report it with the output of `-v`",
    73: "a file, directory or store cannot be written",
    78: "bad configuration, a missing part, or something written by a newer callmeter",
    130: "interrupted by Ctrl-C",
}


def _made_from(what: str) -> str:
    return f"Generated from `{what}` by `scripts/make_reference.py`; change it there."


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    names = list(head)
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return [*lines, *(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in r)} |" for r in rows)]


# --- the command line ----------------------------------------------------------------------------


def cli_page() -> str:
    """Every command with its help, as the terminal shows it."""
    lines = ["# Commands", "", _made_from("callmeter.cli"), ""]
    lines += ["What each is good for: [the command line](../guides/command-line.md).", ""]
    for path, ctx in _commands(_root()):
        command = ctx.command
        lines += [f"{'#' * len(path)} {' '.join(path)}", "", "```"]
        lines += [line.rstrip() for line in command.get_help(ctx).splitlines()]
        lines += ["```", ""]
        variables = [
            f"`{name}` ({_flag(parameter)})"
            for parameter in command.params
            for name in _variables(parameter)
        ]
        if variables:
            lines += [f"From the environment: {', '.join(variables)}.", ""]
    return "\n".join(lines)


def _root() -> click.Context:
    from callmeter.cli.app import cli

    settings: dict[str, Any] = {**cli.context_settings, "terminal_width": _WIDTH}
    return click.Context(cli, info_name="callmeter", **settings)


def _commands(ctx: click.Context) -> Iterator[tuple[list[str], click.Context]]:
    group = ctx.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is not None:
            below = click.Context(command, info_name=name, parent=ctx, terminal_width=_WIDTH)
            yield below.command_path.split(), below
            yield from _commands(below)


def _variables(parameter: click.Parameter) -> list[str]:
    named = parameter.envvar
    return [] if named is None else [named] if isinstance(named, str) else list(named)


def _flag(parameter: click.Parameter) -> str:
    return f"`{max(parameter.opts, key=len)}`"


# --- errors and reasons --------------------------------------------------------------------------


def errors_page() -> str:
    """Exit codes, the tree of errors, and every reason of refusals and drops."""
    lines = [
        "# Errors and reasons",
        "",
        _made_from("callmeter.errors and callmeter.schema.reasons"),
    ]
    lines += ["", "Errors of the command line are one line on standard error.", ""]
    lines += ["## Exit codes", ""]
    lines += _table(("code", "says"), ((str(code), text) for code, text in _EXIT_CODES.items()))
    tree = (callmeter.errors.__doc__ or "").partition("\n\n")[2].rstrip()
    lines += [
        "",
        "## The tree of errors",
        "",
        "What callmeter raises on purpose, and the exit code.",
        "",
    ]
    lines += ["```", tree, "```", "", "## Why something is refused", ""]
    lines += ["Dead letters carry one of these, kept whole beside what was stored.", ""]
    lines += _members(reasons.RefusedReason)
    lines += ["", "## Why something is dropped", ""]
    lines += ["Counted in `callmeter.stats()`, in envelope headers and in metrics.", ""]
    lines += _members(reasons.DropReason)
    return "\n".join([*lines, ""])


def _members(kind: type[reasons.RefusedReason | reasons.DropReason]) -> list[str]:
    source = Path(reasons.__file__).read_text(encoding="utf-8")
    said = dict(re.findall(r'= "(\w+)"  # (.+)$', source, re.MULTILINE))
    return _table(("reason", "means"), ((f"`{r}`", said.get(str(r), "")) for r in kind))


# --- events and topics ---------------------------------------------------------------------------


def events_page() -> str:
    """Every event kind with its fields, and the topics."""
    lines = ["# Events and topics", "", _made_from("callmeter.schema"), ""]
    lines += [
        "How they travel: [formats](formats.md). JSON Schemas lie beside the record types.",
        "",
    ]
    for kind in ("envelope_header", *KINDS):
        schema = json.loads((GENERATED / f"{kind}.json").read_text(encoding="utf-8"))
        lines += [f"## {kind}", "", str(schema.get("description", "")), ""]
        required = set(schema.get("required", ()))
        rows = (
            (f"`{name}`", _type(field), "yes" if name in required else "", _default(field))
            for name, field in schema["properties"].items()
        )
        lines += [*_table(("field", "type", "required", "default"), rows), ""]
    lines += ["## Topics", "", "Full names have the prefix before them: `callmeter.events`.", ""]
    rows = (
        (
            f"`{topic.name}`",
            topic.key,
            topic.carries,
            str(topic.partitions or "N"),
            ", ".join(f"`{k}={v}`" for k, v in topic.config.items()),
        )
        for topic in TOPICS
    )
    lines += _table(("topic", "key", "carries", "partitions", "settings"), rows)
    return "\n".join([*lines, ""])


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(_type(each) for each in field["anyOf"])
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    text = str(field.get("type", "any"))
    if text == "array":
        return f"list of {_type(field.get('items', {}))}"
    if text == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"map to {_type(field['additionalProperties'])}"
    if "maxLength" in field:
        return f"{text}, at most {field['maxLength']} characters"
    return text


def _default(field: dict[str, Any]) -> str:
    return f"`{json.dumps(field['default'])}`" if field.get("default") is not None else ""


# --- metrics -------------------------------------------------------------------------------------


def _metrics(title: str, told: str, rows: Iterable[tuple[str, str, str, str]]) -> str:
    lines = [f"# {title}", "", told, ""]
    lines += _table(("metric", "kind", "labels", "says"), rows)
    return "\n".join([*lines, ""])


def collector_metrics() -> str:
    """The collector's metrics."""
    from callmeter.collector.metrics import _MEANING as MEANING

    rows = ((f"`{name}`", kind, "", says) for name, (kind, says) in MEANING.items())
    told = _made_from("callmeter.collector.metrics") + " Served at `/metrics` of every collector."
    return _metrics("Metrics of the collector", told, rows)


def sink_metrics() -> str:
    """The sink's metrics."""
    from callmeter.cli import sink_metrics as source

    rows = [
        *(
            (f"`{source.PREFIX}_{n}_total`", "counter", "", s)
            for n, (_, s) in source.COUNTERS.items()
        ),
        *((f"`{source.PREFIX}_{n}`", "gauge", "", s) for n, (*_, s) in source.GAUGES.items()),
        (f"`{source.PREFIX}_{source.LAG}`", "gauge", "`partition`", source.LAG_SAYS),
    ]
    told = _made_from("callmeter.cli.sink_metrics") + " Served by `callmeter sink --metrics`."
    return _metrics("Metrics of the sink", told, rows)


def notify_metrics() -> str:
    """Notify's metrics."""
    from callmeter_processors.notify import metrics as source

    rows = [
        *(
            (f"`{source.PREFIX}_{n}_total`", "counter", "", s)
            for n, (_, s) in source.COUNTERS.items()
        ),
        *((f"`{source.PREFIX}_{n}`", "gauge", "`target`", s) for n, s in source.BY_TARGET.items()),
        (f"`{source.PREFIX}_{source.READ}`", "gauge", "", source.READ_SAYS),
    ]
    told = _made_from("callmeter_processors.notify.metrics")
    return _metrics("Metrics of notify", f"{told} Served by `callmeter notify --metrics`.", rows)


def sdk_metrics() -> str:
    """The SDK's metrics."""
    from callmeter.integrations import prometheus_sdk as source

    rows: list[tuple[str, str, str, str]] = []
    for name, (_, kind, says) in source.METRICS.items():
        full = f"{source.PREFIX}_{name}" + ("_total" if kind == "counter" else "")
        rows.append((f"`{full}`", kind, "", says))
    for name, (_, says) in source.BY_REASON.items():
        rows.append((f"`{source.PREFIX}_{name}_total`", "counter", "`reason`", says))
    told = (
        _made_from("callmeter.integrations.prometheus_sdk")
        + " For programs: `REGISTRY.register(SdkMetrics())`, beside their own metrics."
    )
    return _metrics("Metrics of the SDK", told, rows)


def doctor_metrics() -> str:
    """The doctor's metrics."""
    from callmeter.cli import doctor_metrics as source

    rows = (
        (f"`{source.PREFIX}_{name}`", "gauge", ", ".join(f"`{each}`" for each in labels), says)
        for name, (labels, says) in source.METRICS.items()
    )
    told = _made_from("callmeter.cli.doctor_metrics") + " Served by `callmeter doctor --serve`."
    return _metrics("Metrics of the doctor", told, rows)


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "errors.md": errors_page,
    "events.md": events_page,
    "metrics-collector.md": collector_metrics,
    "metrics-doctor.md": doctor_metrics,
    "metrics-notify.md": notify_metrics,
    "metrics-sdk.md": sdk_metrics,
    "metrics-sink.md": sink_metrics,
    "settings.md": settings_page,
}


def main() -> int:
    old = []
    for name, make in PAGES.items():
        path, text = FOLDER / name, make()
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            old.append(name)
    for name in old:
        print(f"docs/reference/{name} is out of date: run scripts/make_reference.py")
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())

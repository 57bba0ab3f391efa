"""Experiments: a list to search, curves of the chosen runs over each other, and a comparison."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from urllib.parse import quote, unquote

import orjson

from callmeter.errors import UsageError
from callmeter_sinks.dashboard import charts, curves, figures
from callmeter_sinks.dashboard.charts import Chart, Line, Mark
from callmeter_sinks.dashboard.context import Asked, Page
from callmeter_sinks.dashboard.curves import Annotation, Axis, Curve, Run
from callmeter_sinks.queries.experiments import CatalogEntry, ExperimentRow

LISTED = 100
#: Runs that one page lays over each other, and charts that it draws.
MOST_RUNS = 8
_CHARTS = 6
_LINES = 16
_MOST_ASKED = 200


@dataclass(frozen=True, slots=True)
class Choice:
    """What the URL chooses beside the view."""

    text: str
    metadata: tuple[str, ...]
    runs: tuple[Run, ...]
    metrics: tuple[str, ...]
    split: str
    x: Axis


@dataclass(frozen=True, slots=True)
class Compared:
    """One line of the comparison; ``differs`` says that the runs do not agree."""

    label: str
    values: Sequence[str]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


async def page(asked: Asked) -> Page:
    """``?q=`` searches, ``meta=key[=value]`` filters, ``run=project/slug`` (repeatable) chooses."""
    choice = _choice(asked)
    project = asked.view.project
    rows = await asked.query(
        "experiments", choice.text, choice.metadata,
        project=project, metadata=choice.metadata, text=choice.text or None, limit=LISTED + 1,
    )  # fmt: skip
    context = {
        "title": "Experiments",
        "rows": rows[:LISTED],
        "more": len(rows) > LISTED,
        "choice": choice,
        "chosen": choice.runs,
        "value_of": value_of,
        "most_runs": MOST_RUNS,
    }
    return Page("experiments.html", {**context, **await _chosen(asked, choice)})


async def _chosen(asked: Asked, choice: Choice) -> Mapping[str, object]:
    if not choice.runs:
        return {"charts": [], "runs": []}
    slugs = list(dict.fromkeys(run[1] for run in choice.runs))
    project = asked.view.project
    entries, every, noted = await asyncio.gather(
        asked.query("catalog", *slugs, project=project, experiments=slugs),
        asked.query("experiments", "all", project=project, limit=10_000),
        asked.read("notes", partial(curves.notes, runs=choice.runs), choice.runs),
    )
    catalog = [each for each in entries if (each.project, each.experiment) in choice.runs]
    metrics = _metrics(catalog)
    shown = [name for name in choice.metrics if name in metrics] or metrics[:_CHARTS]
    found = await asked.read(
        "curves",
        partial(
            curves.curves, runs=choice.runs, names=shown[:_CHARTS], split=choice.split, x=choice.x
        ),
        choice,
        *shown,
    )
    by_run = {(row.project, row.slug): row for row in every}
    runs = [by_run[run] for run in choice.runs if run in by_run]
    numbered = [(str(place), note) for place, note in enumerate(noted, 1)]
    return {
        "charts": [
            chart(f"m{place}", name, found, choice, numbered)
            for place, name in enumerate(shown[:_CHARTS])
        ],
        "runs": runs,
        "metrics": metrics,
        "shown": shown,
        "label_keys": sorted({key for each in catalog for key in each.label_keys}),
        "notes": numbered,
        "compared": compare(runs),
        "values": compare_values(runs, found, shown[:_CHARTS]),
        "unknown_runs": [_name(run) for run in choice.runs if run not in by_run],
    }


def chart(
    id_: str,
    name: str,
    found: Sequence[Curve],
    choice: Choice,
    notes: Sequence[tuple[str, Annotation]],
) -> Chart:
    """One metric of all runs; a colour is a run's, also on the next chart."""
    mine = [curve for curve in found if curve.name == name]
    shown = mine[:_LINES]
    x = sorted({at for curve in shown for at, _ in curve.points})
    place = {at: number for number, at in enumerate(x)}
    several = len({run[0] for run in choice.runs}) > 1
    ordered = sorted(shown, key=lambda each: (choice.runs.index(each.run), each.label))
    lines = []
    for number, curve in enumerate(ordered):
        values: list[float | None] = [None] * len(x)
        for at, value in curve.points:
            values[place[at]] = value
        run = _name(curve.run) if several else curve.run[1]
        label = f"{run} · {curve.label}" if curve.label else run
        texts = [figures.UNKNOWN if v is None else figures.number(v) for v in values]
        colour = number if choice.split else choice.runs.index(curve.run)
        lines.append(Line(label, values, texts, charts.colour(colour)))
    thinned = any(len(curve.points) < curve.number for curve in shown)
    said = []
    if thinned:
        said.append(f"Curves are thinned to {curves.POINTS} points each.")
    if len(mine) > len(shown):
        said.append(f"{len(mine) - len(shown)} more lines are not shown.")
    return Chart(
        id=id_,
        title=name,
        kind="lines",
        x=x,
        x_texts=[_x_text(at, choice.x) for at in x],
        lines=lines,
        unit="value",
        time=choice.x == "time",
        marks=_marks(notes, choice.x),
        note=" ".join(said),
    )


def compare(runs: Sequence[ExperimentRow]) -> list[Compared]:
    """Status, times and metadata, key by key; what differs first."""
    if len(runs) < 1:
        return []
    rows = [
        Compared("status", [run.status or figures.UNKNOWN for run in runs]),
        Compared("first heard", [figures.moment(run.first_at) for run in runs]),
        Compared("last heard", [figures.moment(run.last_at) for run in runs]),
    ]
    keys = sorted({key for run in runs for key in run.metadata})
    held = [Compared(key, [_said(run.metadata.get(key)) for run in runs]) for key in keys]
    return [*rows, *sorted(held, key=lambda row: not row.differs)]


def compare_values(
    runs: Sequence[ExperimentRow], found: Sequence[Curve], names: Sequence[str]
) -> list[Compared]:
    """Last, least and greatest value of each metric of each run, over all lines of it."""
    rows = []
    for name in names:
        of = {
            (run.project, run.slug): [
                c for c in found if c.run == (run.project, run.slug) and c.name == name
            ]
            for run in runs
        }
        for label, pick in (("last", None), ("min", min), ("max", max)):
            values = []
            for held in of.values():
                if not held or (pick is None and len(held) > 1):
                    values.append(figures.UNKNOWN if not held else "by label")
                elif pick is None:
                    values.append(figures.number(held[0].last))
                else:
                    ends = [c.least if pick is min else c.most for c in held]
                    values.append(figures.number(pick(ends)))
            rows.append(Compared(f"{name}, {label}", values))
    return rows


def _marks(notes: Sequence[tuple[str, Annotation]], x: Axis) -> list[Mark]:
    """Notes at one place share a mark, which names them all."""
    found: dict[float, list[str]] = {}
    for label, note in notes:
        at = note.at.timestamp() if x == "time" else note.step
        if at is not None:
            found.setdefault(float(at), []).append(label)
    return [Mark(at, ", ".join(labels)) for at, labels in sorted(found.items())]


def _metrics(catalog: Sequence[CatalogEntry]) -> list[str]:
    """Names that most runs have come first."""
    counts: dict[str, int] = {}
    for each in catalog:
        for name in each.metrics:
            counts[name] = counts.get(name, 0) + 1
    return sorted(counts, key=lambda name: (-counts[name], name))


def _choice(asked: Asked) -> Choice:
    query = asked.request.query
    texts = [*query.getall("meta", ()), *query.getall("run", ()), *query.getall("metric", ())]
    if len(texts) > _MOST_ASKED or any(len(text) > 1024 for text in (*texts, *query.values())):
        raise UsageError("the address asks for more than a page can show")
    clean = {
        name: [text.encode("utf-8", "replace").decode() for text in query.getall(name, ()) if text]
        for name in ("q", "meta", "run", "metric", "split", "x")
    }
    runs = []
    for text in dict.fromkeys(clean["run"]):
        project, slash, slug = text.partition("/")
        project = unquote(project)
        mine = asked.reader.covers(project) and asked.view.project in (None, project)
        if slash and slug and mine:
            runs.append((project, slug))
    x: Axis = "time" if "time" in clean["x"] else "step"
    return Choice(
        text=next(iter(clean["q"]), ""),
        metadata=tuple(clean["meta"]),
        runs=tuple(runs[:MOST_RUNS]),
        metrics=tuple(clean["metric"]),
        split=next(iter(clean["split"]), ""),
        x=x,
    )


def value_of(project: str, slug: str) -> str:
    """A run in an address: its project without any ``/``, and its slug, which may be a path."""
    return f"{quote(project, safe='')}/{slug}"


def _name(run: Run) -> str:
    return f"{run[0]}/{run[1]}"


def _said(value: object) -> str:
    if value is None:
        return figures.UNKNOWN
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _x_text(at: float, x: Axis) -> str:
    if x == "step":
        return f"{at:,.0f}"
    return figures.moment(datetime.fromtimestamp(at, UTC))

"""What the collector is asked about experiments, in the facade's own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin

from callmeter.compat.syvain.errors import MetricsCollectorError
from callmeter.compat.syvain.link import Link

MAX_CATALOG = 64


@dataclass(frozen=True, slots=True)
class Created:
    """A created or joined experiment; ``project`` is where its events belong."""

    id: str
    url: str
    project: str


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one metric: three lists of equal length. Timestamps are milliseconds."""

    name: str
    steps: Sequence[int | None]
    timestamps: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One experiment's metric names, the keys of their metadata, and the keys of its own."""

    experiment: str
    metrics: Sequence[str]
    metadata_keys: Sequence[str]
    meta_keys: Sequence[str]


def create(
    link: Link,
    slug: str,
    *,
    description: str,
    meta: Mapping[str, Any],
    project: str | None,
    folder_id: str | None,
) -> Created:
    """Create or join an experiment. ``MetricsRequestError`` if the collector does not."""
    body: dict[str, Any] = {"slug": slug, "description": description, "metadata": meta}
    if project is not None:
        body["project"] = project
    if folder_id is not None:
        body["folder_id"] = folder_id
    answer = link.post("/v1/experiments", body, f"creating experiment {slug!r}")
    link.accept(answer)
    made = answer.get("experiment")
    made = made if isinstance(made, dict) else answer
    if not isinstance(made.get("id"), str) or not isinstance(made.get("url"), str):
        raise MetricsCollectorError(f"creating experiment {slug!r} failed: no id in the answer")
    url = urljoin(link.endpoint.display + "/", made["url"])
    return Created(made["id"], url, str(made.get("project") or project or "default"))


def folder_at(link: Link, path: str, project: str | None) -> str:
    """The id of the one folder at a path; ``MetricsCollectorError`` for none and for several."""
    answer = link.get(
        "/v1/folders", {"path": path, "project": project}, f"looking for folder {path!r}"
    )
    found = answer.get("folders")
    folders = found if isinstance(found, list) else []
    if len(folders) != 1:
        how_many = "no folder" if not folders else f"{len(folders)} folders"
        raise MetricsCollectorError(f"there must be one folder at {path!r}: found {how_many}")
    return str(folders[0]["id"])


def series(
    link: Link,
    experiment_id: str,
    name: str,
    *,
    metadata: Sequence[str],
    order_by: str,
    direction: str,
    limit: int,
) -> Series:
    """Stored points of a metric. See ``Experiment.series``."""
    filters = [metadata] if isinstance(metadata, str) else list(metadata)
    answer = link.get(
        f"/v1/experiments/{quote(experiment_id, safe='')}/series",
        {
            "name": name,
            "metadata": filters,
            "order_by": order_by,
            "direction": direction,
            "limit": limit,
        },
        f"asking for the series {name!r}",
    )
    return Series(name, answer["steps"], answer["timestamps"], answer["values"])


def catalog(link: Link, slugs: Sequence[str], project: str | None) -> list[CatalogEntry]:
    """Names and keys of up to 64 experiments. ``ValueError`` for more."""
    if len(slugs) > MAX_CATALOG:
        raise ValueError(f"a catalog covers up to {MAX_CATALOG} experiments, not {len(slugs)}")
    answer = link.get(
        "/v1/catalog", {"experiment": list(slugs), "project": project}, "asking for the catalog"
    )
    return [
        CatalogEntry(
            entry["experiment"], entry["metrics"], entry["metadata_keys"], entry["meta_keys"]
        )
        for entry in answer["experiments"]
    ]

"""The form of Prometheus collectors that count nothing: a scrape reads figures kept elsewhere.

Families are plain values here; ``prometheus_client`` is imported when they are scraped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from callmeter.errors import MissingExtraError

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

#: Labels and value of each series; a number alone is the one series of a family without labels.
Series = float | Iterable[tuple[Mapping[str, str], float]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of the exposition. ``ends`` follows the family's name: ``_total``, ``_bucket``."""

    ends: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with all its series; ``name`` has no prefix, and a counter's no ``_total``."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    says: str
    samples: tuple[Sample, ...]


def counter(name: str, says: str, series: Series) -> Family:
    """What only grows until the process ends."""
    return Family(name, "counter", says, _samples("_total", series))


def gauge(name: str, says: str, series: Series) -> Family:
    """What goes up and down."""
    return Family(name, "gauge", says, _samples("", series))


def histogram(
    name: str, says: str, bounds: Sequence[float], counts: Sequence[int], total: float
) -> Family:
    """Values by size: ``counts`` has one up to each of ``bounds`` and one above, ``total`` adds up
    the values themselves.
    """
    samples: list[Sample] = []
    so_far = 0
    for bound, count in zip((*bounds, "+Inf"), counts, strict=True):
        so_far += count
        samples.append(Sample("_bucket", {"le": str(bound)}, so_far))
    samples += [Sample("_count", {}, so_far), Sample("_sum", {}, total)]
    return Family(name, "histogram", says, tuple(samples))


def told_apart(label: str, each: Mapping[str, Iterable[Family]]) -> Iterator[Family]:
    """The same families of several, each family once: ``label`` says whose a series is."""
    for families in zip(*each.values(), strict=True):
        samples = [
            replace(sample, labels={label: whose, **sample.labels})
            for whose, family in zip(each, families, strict=True)
            for sample in family.samples
        ]
        yield replace(families[0], samples=tuple(samples))


class Scraped(ABC):
    """A collector for ``registry.register``: a subclass says its prefix and its families.

    A scrape may come from any thread.
    """

    prefix: ClassVar[str]

    @abstractmethod
    def families(self) -> Iterable[Family]:
        """Every family as it is now, those without a series too."""

    def describe(self) -> Iterator[Metric]:
        """The names, which are the same at any time."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """The families as the client has them; ``MissingExtraError`` without prometheus-client."""
        try:
            from prometheus_client.core import Metric
        except ImportError as exc:
            raise MissingExtraError("prometheus-client", "prometheus") from exc
        for family in self.families():
            name = f"{self.prefix}_{family.name}"
            metric = Metric(name, family.says, family.kind)
            for sample in family.samples:
                metric.add_sample(f"{name}{sample.ends}", dict(sample.labels), sample.value)
            yield metric


def _samples(ends: str, series: Series) -> tuple[Sample, ...]:
    if isinstance(series, int | float):
        return (Sample(ends, {}, series),)
    return tuple(Sample(ends, labels, value) for labels, value in series)

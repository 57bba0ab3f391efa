"""What the doctor says of one piece, and which page of the guides helps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from callmeter.errors import CallmeterError

#: Where the guides lie in the repository and on the documentation site.
GUIDES = "docs/guides"


#: Pieces that only a thorough look asks for.
THOROUGH = ("gaps", "unpriced", "twice")


class State(StrEnum):
    """How a piece is."""

    OK = "ok"
    NOTICE = "notice"  # works; somebody should look
    WRONG = "wrong"  # does not do its work
    UNASKED = "unasked"  # not installed or not named


@dataclass(frozen=True, slots=True)
class Figure:
    """One number for Prometheus: ``callmeter_doctor_<name>{labels}``."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """One piece: how it is, a line for people, the page that helps, numbers for machines.

    ``guide`` is a file under ``docs/guides``, with an anchor where one fits.
    """

    piece: str
    state: State
    detail: str
    guide: str
    figures: tuple[Figure, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON; ``guide`` from the repository's root."""
        return {
            "piece": self.piece,
            "state": str(self.state),
            "detail": self.detail,
            "guide": f"{GUIDES}/{self.guide}",
        }


def looked(piece: str, guide: str, look: Callable[[], Finding | None]) -> Iterator[Finding]:
    """The finding of ``look``, or what it raised as one; nothing for None."""
    try:
        finding = look()
    except CallmeterError as exc:
        yield Finding(piece, State.WRONG, str(exc), guide)
    except ModuleNotFoundError as exc:
        yield Finding(piece, State.WRONG, f"{exc.name} is not installed (see above)", guide)
    else:
        if finding is not None:
            yield finding

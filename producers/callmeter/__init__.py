"""callmeter meters every call of an LLM program: cost, behaviour and budgets.

    import callmeter

    callmeter.init(project="shop")
    with callmeter.generation("answer", model="gpt-4o-mini", provider="openai") as call:
        call.record(ask_the_model())

Names are loaded when they are first used, so importing the package costs next to nothing.
"""

from __future__ import annotations

from callmeter._version import __version__

# Type checkers know the name; typing itself would be most of the time this import takes.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from callmeter.errors import (
        CallmeterError,
        ConfigError,
        DeliveryError,
        MissingExtraError,
        UsageError,
    )
    from callmeter.integrations import Undo, instrument
    from callmeter.sdk.api import (
        annotation,
        close,
        cost,
        experiment,
        flush,
        flush_or_raise,
        generation,
        init,
        metric,
        phase,
        program,
        stats,
        tags,
    )
    from callmeter.sdk.budget.guard import (
        BudgetExceeded,
        BudgetGuard,
        BudgetLimit,
        BudgetWarning,
        CircuitState,
    )
    from callmeter.sdk.call import Call
    from callmeter.sdk.client import Client
    from callmeter.sdk.experiment import Experiment
    from callmeter.sdk.results import FlushResult, Stats
    from callmeter.sdk.track import track
    from callmeter.settings import Settings

_HOMES = {
    "callmeter.errors": (
        "CallmeterError",
        "ConfigError",
        "DeliveryError",
        "MissingExtraError",
        "UsageError",
    ),
    "callmeter.integrations": ("Undo", "instrument"),
    "callmeter.sdk.api": (
        "annotation",
        "close",
        "cost",
        "experiment",
        "flush",
        "flush_or_raise",
        "generation",
        "init",
        "metric",
        "phase",
        "program",
        "stats",
        "tags",
    ),
    "callmeter.sdk.budget.guard": (
        "BudgetExceeded",
        "BudgetGuard",
        "BudgetLimit",
        "BudgetWarning",
        "CircuitState",
    ),
    "callmeter.sdk.call": ("Call",),
    "callmeter.sdk.client": ("Client",),
    "callmeter.sdk.experiment": ("Experiment",),
    "callmeter.sdk.results": ("FlushResult", "Stats"),
    "callmeter.sdk.track": ("track",),
    "callmeter.settings": ("Settings",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BudgetExceeded",
    "BudgetGuard",
    "BudgetLimit",
    "BudgetWarning",
    "Call",
    "CallmeterError",
    "CircuitState",
    "Client",
    "ConfigError",
    "DeliveryError",
    "Experiment",
    "FlushResult",
    "MissingExtraError",
    "Settings",
    "Stats",
    "Undo",
    "UsageError",
    "__version__",
    "annotation",
    "close",
    "cost",
    "experiment",
    "flush",
    "flush_or_raise",
    "generation",
    "init",
    "instrument",
    "metric",
    "phase",
    "program",
    "stats",
    "tags",
    "track",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'callmeter' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

"""Instruments for providers' client libraries: one line, and every call is metered.

Each instrument is idempotent, undoable and transparent: what callers see does not change. When
instruments nest, only the innermost emits the billable call (``nesting``).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from types import TracebackType
from typing import Self

from callmeter.errors import ConfigError, MissingExtraError, UsageError

#: Name → (distribution's module, our module, extra). Our module has ``install() -> undo``. There is
#: no extra for LiteLLM: it pins a client of OpenAI's that is older than what the others take.
INSTRUMENTS: dict[str, tuple[str, str, str | None]] = {
    "anthropic": ("anthropic", "callmeter.integrations.anthropic_client", "anthropic"),
    "langchain": ("langchain_core", "callmeter.integrations.langchain", "langchain"),
    "litellm": ("litellm", "callmeter.integrations.litellm_callback", None),
    "openai": ("openai", "callmeter.integrations.openai_client", "openai"),
}
_installed: dict[str, Callable[[], None]] = {}


class Undo:
    """Takes instruments away again: call it, or use it as a context manager. Idempotent."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def __call__(self) -> None:
        for name in self.names:
            undo = _installed.pop(name, None)
            if undo is not None:
                undo()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self()


def instrument(*names: str) -> Undo:
    """Meter the calls of client libraries, for example ``"openai"``; none means all installed.

    A library that is instrumented already stays as it is, and is not part of the ``Undo``.
    ``UsageError`` for a name there is no instrument for; if a named library is not installed
    ``MissingExtraError``, or ``ConfigError`` for one without an extra.

    >>> callmeter.instrument("openai")
    """
    wanted = names or tuple(n for n, (module, _, _) in INSTRUMENTS.items() if _is_there(module))
    for name in wanted:
        if name not in INSTRUMENTS:
            known = ", ".join(sorted(INSTRUMENTS))
            raise UsageError(f"there is no instrument for {name!r}; there are: {known}")
        module, _, extra = INSTRUMENTS[name]
        if not _is_there(module):
            if extra is None:
                raise ConfigError(f"the library {module} is not installed: pip install {module}")
            raise MissingExtraError(f"the library {module}", extra)
    fresh: list[str] = []
    for name in wanted:
        if name not in _installed:
            _installed[name] = importlib.import_module(INSTRUMENTS[name][1]).install()
            fresh.append(name)
    return Undo(tuple(fresh))


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None

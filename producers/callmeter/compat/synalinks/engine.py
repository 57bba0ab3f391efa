"""Metering an engine's modules: its ``Module.__call__`` is replaced by one that is timed.

What callers see does not change; results, exceptions and streams pass through. Everything is put
back by ``Attached``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
import threading
from types import ModuleType, TracebackType
from typing import Any, Self

from callmeter.compat.synalinks.counters import counters
from callmeter.compat.synalinks.current import RUN
from callmeter.compat.synalinks.modules import Role, role_of_class
from callmeter.compat.synalinks.reading import read_model
from callmeter.compat.synalinks.running import Run, is_stream
from callmeter.errors import UsageError

ENGINE = "synalinks"
_ABSENT = object()


class _Patches:
    """What was replaced, by class."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.replaced: dict[type, list[tuple[str, Any]]] = {}


_patches = _Patches()


class Attached:
    """Takes the metering of these classes away again: call it, or use it as a context manager."""

    def __init__(self, classes: tuple[type, ...]) -> None:
        self._classes = classes

    def __call__(self) -> None:
        with _patches.lock:
            for cls in self._classes:
                for name, before in reversed(_patches.replaced.pop(cls, [])):
                    if before is _ABSENT:
                        delattr(cls, name)
                    else:
                        setattr(cls, name, before)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self()


def instrument(engine: ModuleType | type | None = None) -> Attached:
    """Meter every call of an engine's modules; by default of the installed ``synalinks``.

    ``engine`` is a module with a class ``Module``, and ``LanguageModel`` and ``EmbeddingModel``
    where it has models, or the class of the modules itself. Idempotent: what is metered already
    stays, and is not part of the result. ``UsageError`` if no engine is installed.
    """
    if engine is None:
        engine = find_engine()
        if engine is None:
            raise UsageError("there is no engine to meter: pip install synalinks")
    if isinstance(engine, type):
        return Attached(_attach(engine))
    module_class = getattr(engine, "Module", None)
    if not isinstance(module_class, type):
        raise UsageError(f"{engine.__name__} has no class Module to meter")
    attached = _attach(module_class)
    for role in (Role.LANGUAGE_MODEL, Role.EMBEDDING_MODEL):
        model_class = getattr(engine, role.value, None)
        if isinstance(model_class, type):
            attached += _attach_model(model_class)
    return Attached(attached)


def instrument_installed() -> None:
    """Meter the installed engine, if there is one."""
    engine = find_engine()
    if engine is not None:
        instrument(engine)


def find_engine() -> ModuleType | None:
    """The installed ``synalinks``; None if there is none."""
    loaded = sys.modules.get(ENGINE)
    if loaded is not None:
        return loaded
    return importlib.import_module(ENGINE) if importlib.util.find_spec(ENGINE) else None


def ensure_metered(program: Any) -> None:
    """Meter the modules that a program is one of, if that was not done yet."""
    for cls in type(program).__mro__:
        if cls.__name__ == "Module":
            _attach(cls)


def _attach(cls: type) -> tuple[type, ...]:
    with _patches.lock:
        if cls in _patches.replaced:
            return ()
        owner = next((base for base in cls.__mro__ if "__call__" in vars(base)), None)
        if owner in _patches.replaced:
            return ()
        original = None if owner is None else vars(owner)["__call__"]
        if original is None:
            raise UsageError(f"{cls.__name__} cannot be called: there is nothing to meter")
        _replace(cls, "__call__", _metered(original))
        for name, counter in counters().items():
            if not hasattr(cls, name):
                _replace(cls, name, counter)
        return (cls,)


def _attach_model(cls: type) -> tuple[type, ...]:
    """Listen to what a model knows inside a call: a reply's figures, the last error, cache hits."""
    with _patches.lock:
        if cls in _patches.replaced:
            return ()
        attempt = getattr(cls, "_call_with_retry", None)
        if inspect.iscoroutinefunction(attempt):
            _replace(cls, "_call_with_retry", _attempted(attempt))
        event = getattr(cls, "_record_event", None)
        if callable(event):
            _replace(cls, "_record_event", _heard(event))
        return (cls,) if cls in _patches.replaced else ()


def _replace(cls: type, name: str, value: Any) -> None:
    _patches.replaced.setdefault(cls, []).append((name, vars(cls).get(name, _ABSENT)))
    setattr(cls, name, value)


def _metered(original: Any) -> Any:
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def called(self: Any, *args: Any, **kwargs: Any) -> Any:
            _listen(type(self))
            with Run(self, args, kwargs) as run:
                result = await original(self, *args, **kwargs)
            return run.answer(result)

        return called

    @functools.wraps(original)
    def called_now(self: Any, *args: Any, **kwargs: Any) -> Any:
        with Run(self, args, kwargs) as run:
            result = original(self, *args, **kwargs)
        return run.answer(result)

    return called_now


def _listen(cls: type) -> None:
    """Models are listened to from their first call, if the engine was not handed over whole."""
    if role_of_class(cls) is Role.MODULE:
        return
    for base in cls.__mro__:
        if base.__name__ in (Role.LANGUAGE_MODEL.value, Role.EMBEDDING_MODEL.value):
            if base not in _patches.replaced:
                _attach_model(base)
            return


def _attempted(original: Any) -> Any:
    @functools.wraps(original)
    async def attempted(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = RUN.get()
        try:
            reply = await original(self, *args, **kwargs)
        except Exception as exc:
            if run is not None and run.module is self:
                run.error = exc
            raise
        if run is not None and run.module is self and not is_stream(reply):
            run.took(read_model(self))
        return reply

    return attempted


def _heard(original: Any) -> Any:
    @functools.wraps(original)
    def heard(self: Any, suffix: str, *args: Any, **kwargs: Any) -> Any:
        run = RUN.get()
        if suffix == "cache_hits" and run is not None and run.module is self:
            run.cache_hit = True
        return original(self, suffix, *args, **kwargs)

    return heard

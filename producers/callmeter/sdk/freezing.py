"""Snapshots of what users hand over: plain JSON values that nobody changes afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ATOMS = frozenset({str, int, float, bool, type(None)})
#: Depth and size bounds: a snapshot never follows a cycle and never copies the whole program.
MAX_DEPTH = 20
MAX_NODES = 20_000


class _Budget:
    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_NODES


def freeze(value: Any) -> Any:
    """A copy made of dicts, lists, text, numbers and None. Models (pydantic, dataclasses with
    ``get_json``) give their own JSON; anything else its ``str``. Never raises.
    """
    return _freeze(value, MAX_DEPTH, _Budget())


def freeze_map(values: Mapping[str, Any]) -> dict[str, Any]:
    """Freeze the values of a map, atoms as they are."""
    return {
        k if type(k) is str else str(k): v if type(v) in _ATOMS else freeze(v)
        for k, v in values.items()
    }


def _freeze(value: Any, depth: int, budget: _Budget) -> Any:
    if type(value) in _ATOMS:
        return value
    budget.left -= 1
    if depth <= 0 or budget.left <= 0:
        return "…"
    if isinstance(value, Mapping):
        return {
            k if type(k) is str else str(k): _freeze(v, depth - 1, budget)
            for k, v in list(value.items())
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_freeze(v, depth - 1, budget) for v in list(value)]
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    try:
        for method in ("model_dump", "get_json", "to_dict"):
            dump = getattr(value, method, None)
            if callable(dump) and not isinstance(value, type):
                return _freeze(dump(), depth - 1, budget)
        return str(value)
    except Exception as exc:  # noqa: BLE001  # a user's own method may do anything
        return f"<{type(value).__name__}: {type(exc).__name__}>"

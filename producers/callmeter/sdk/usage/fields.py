"""Reading fields of replies that are objects in one client and dicts in the next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def get(source: Any, *path: str | int) -> Any:
    """The value at a path of keys, attributes and list positions; None if any step is missing."""
    value = source
    for step in path:
        if value is None:
            return None
        if isinstance(step, int):
            if not isinstance(value, list | tuple) or len(value) <= step:
                return None
            value = value[step]
        elif isinstance(value, Mapping):
            value = value.get(step)
        else:
            value = getattr(value, step, None)
    return value


def first(source: Any, *names: str) -> Any:
    """The first of several fields that is there."""
    for name in names:
        value = get(source, name)
        if value is not None:
            return value
    return None


def count(value: Any) -> int | None:
    """A count of tokens; None for anything that is no count."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if value >= 0 else None
    if isinstance(value, float) and math.isfinite(value) and value >= 0 and value == int(value):
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    return None


def counts(**values: Any) -> dict[str, int] | None:
    """Units that are counts. A detail of 0 says nothing and is left out; None if nothing is left.

    ``input`` and ``output`` of 0 are kept: they were counted and are none.
    """
    found = {unit: n for unit, value in values.items() if (n := count(value)) is not None}
    if not found:
        return None
    return {unit: n for unit, n in found.items() if n or unit in ("input", "output")}


def added(*values: Any) -> int | None:
    """The sum of those values that are counts, if the first is one."""
    if count(values[0]) is None:
        return None
    return sum(count(value) or 0 for value in values)


def text(value: Any) -> str | None:
    """Text that says something. Enumerations of clients give their name."""
    if isinstance(value, str):
        return str(getattr(value, "value", value)) or None
    name = getattr(value, "name", None)
    return name if isinstance(name, str) and name else None

"""What a module was given and answered, as the Monitor hook's payload says it.

Data models are known by their methods: ``get_json`` (a value) and ``get_schema`` (a symbolic one
stands for values to come and has a schema only).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(data: Any) -> Iterator[Any]:
    """What dicts, lists and tuples hold, at any depth, in their order; None is left out."""
    if isinstance(data, Mapping):
        for value in data.values():
            yield from leaves(value)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from leaves(value)
    elif data is not None:
        yield data


def is_symbolic(data: Any) -> bool:
    """Whether any leaf is a symbolic data model."""
    return any(_symbolic(leaf) for leaf in leaves(data))


def payload_of(data: Any) -> dict[str, Any] | None:
    """``{"type": "data", "data": [...]}`` or ``{"type": "symbolic", "schemas": [...]}``.

    One entry for each data model, in order. None if there is none: no argument, only None, or what
    has no JSON yet, as a stream.
    """
    found = list(leaves(data))
    if any(_symbolic(leaf) for leaf in found):
        schemas = [leaf.get_schema() for leaf in found if hasattr(leaf, "get_schema")]
        return {"type": "symbolic", "schemas": schemas}
    jsons = [leaf.get_json() for leaf in found if hasattr(leaf, "get_json")]
    return {"type": "data", "data": jsons} if jsons else None


def _symbolic(leaf: Any) -> bool:
    if not hasattr(leaf, "get_schema"):
        return False
    named = any(cls.__name__ == "SymbolicDataModel" for cls in type(leaf).__mro__)
    return named or not hasattr(leaf, "get_json")

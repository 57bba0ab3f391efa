"""``_last_request_usage``, the attribute by which a model tells what its last request used.

One attribute on an object that answers many requests at once: the last writer would win, and every
request would be counted with another one's tokens. So the decorator puts a descriptor in its place,
which keeps what is written during a request apart for that request; outside of any request the
attribute is what it was.
"""

from __future__ import annotations

import inspect
from contextvars import ContextVar, Token
from typing import Any

NAME = "_last_request_usage"


class Box:
    """What one request has said of its usage."""

    __slots__ = ("before", "owner", "said", "token", "usage")

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.usage: Any = None
        self.said = False
        kind = type(owner)
        fresh = type(kind.__dict__.get(NAME)) is not UsageSlot
        if fresh and not _install(kind) and hasattr(owner, NAME):
            setattr(owner, NAME, None)  # the class has its own way: at least nothing stale is read
        self.before = _stored(owner)
        self.token: Token[Box | None] = _BOX.set(self)

    def close(self) -> Any:
        """The request is over: what it said, None if nothing.

        A thread that was started without the request's context writes past the box, so a value that
        changed meanwhile is taken too.
        """
        try:
            _BOX.reset(self.token)
        except ValueError:
            # Closed by another task: the box is not in force there.
            self.said = self.said or False
        if self.said:
            return self.usage
        after = _stored(self.owner)
        return after if after is not self.before else None


class UsageSlot:
    """The descriptor. Reading during a request gives what that request wrote, None before."""

    def __init__(self, default: Any) -> None:
        self._default = default

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        box = _BOX.get()
        if owner is None:
            return self._default
        if box is not None and box.owner is owner:
            return box.usage
        return vars(owner).get(NAME, self._default)

    def __set__(self, owner: Any, value: Any) -> None:
        box = _BOX.get()
        if box is not None and box.owner is owner:
            box.usage, box.said = value, True
        vars(owner)[NAME] = value


_BOX: ContextVar[Box | None] = ContextVar("callmeter_sygra_usage", default=None)


def _install(kind: type) -> bool:
    """Put the descriptor on the class itself; False where the class does not allow it."""
    found = inspect.getattr_static(kind, NAME, None)
    if hasattr(type(found), "__set__") and not isinstance(found, UsageSlot):
        return False  # a property or a slot: the class has its own way
    if "__dict__" not in dir(kind):
        return False  # its objects have slots only
    default = getattr(kind, NAME, None)
    try:
        setattr(kind, NAME, UsageSlot(default))
    except (AttributeError, TypeError):
        return False  # built in, or frozen by its metaclass
    return True


def _stored(owner: Any) -> Any:
    """What the object holds, past the box."""
    try:
        return vars(owner).get(NAME)
    except TypeError:  # without a __dict__
        return getattr(owner, NAME, None)

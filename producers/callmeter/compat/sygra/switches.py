"""The three switches: environment, the ``-dm`` flag, and code (``set_enabled``)."""

from __future__ import annotations

import os

from callmeter.settings import is_true

#: The name the document gives; callmeter's own switch turns everything off as well.
VARIABLE = "SYGRA_DISABLE_METADATA"
_OWN_VARIABLE = "CALLMETER_DISABLED"


def disabled_by_environment() -> bool:
    """Whether either variable says 1, true or yes, in any case."""
    return any(is_true(os.environ.get(name)) for name in (VARIABLE, _OWN_VARIABLE))


def flag(value: bool | str | None) -> bool:
    """What was given to ``-dm``: a bool, or 1, true, yes in any case."""
    return value if isinstance(value, bool) else is_true(value)

"""What each call costs its caller: compiled code where there is some, the same in Python else.

``_hot`` (Cython) and ``plain_hot`` do the same to the same attributes; all that is not done by
every call is written once, in ``call`` and ``intake``. Compiled, a call takes its caller a third
less time (docs/decisions/0013-hot-path.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from callmeter.sdk.ended import Ended
    from callmeter.sdk.plain_hot import HotCall, HotDefault, HotIntake, generation_with

    _COMPILED: bool
else:
    try:
        from callmeter.sdk._hot import Ended, HotCall, HotDefault, HotIntake, generation_with

        _COMPILED = True
    except ImportError:
        from callmeter.sdk.ended import Ended
        from callmeter.sdk.plain_hot import HotCall, HotDefault, HotIntake, generation_with

        _COMPILED = False

__all__ = ["Ended", "HotCall", "HotDefault", "HotIntake", "compiled", "generation_with"]


def compiled() -> bool:
    """Whether calls begin and end in compiled code."""
    return _COMPILED

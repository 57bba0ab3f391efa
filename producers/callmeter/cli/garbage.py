"""Garbage collection of a process of our own: seldom, since reference counts free nearly all."""

from __future__ import annotations

import gc

#: Containers made in net before the youngest are looked at (Python's 700), and how many of these
#: looks make one at the older, and of those one at all. A meter makes some thousand containers an
#: envelope and frees them again: with Python's figures a tenth of its time went into looking.
_THRESHOLDS = (50_000, 20, 50)


def collect_seldom() -> None:
    """To be called once, when everything is imported: what is there by then is not looked at again.

    For processes that callmeter owns, never for a host's.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)

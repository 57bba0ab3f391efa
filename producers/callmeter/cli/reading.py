"""How the meter reads lines of ordinary calls here: for the doctor, and for a worker's log."""

from __future__ import annotations


def reading() -> tuple[bool, str]:
    """Whether the compiled reader is in use, and the same in words that say what to do."""
    from callmeter_processors import ordinary

    if ordinary.compiled():
        return True, "ordinary calls are read by compiled code"
    return False, "pure Python; the meter takes twice the CPU; install a C compiler and reinstall"

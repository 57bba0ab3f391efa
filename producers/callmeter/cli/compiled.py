"""What is compiled here, and what it costs where it is not: for the doctor, and a worker's log."""

from __future__ import annotations


def compiled_parts() -> tuple[bool, str]:
    """Whether all that can be compiled is, and the same in words that say what to do."""
    from callmeter.sdk import hot
    from callmeter_processors import ordinary

    losses = []
    if not ordinary.compiled():
        losses.append("the meter takes twice the CPU")
    if not hot.compiled():
        losses.append("a traced call takes half as long again")
    if not losses:
        return True, "ordinary calls are traced and read by compiled code"
    return False, f"pure Python; {'; '.join(losses)}; install a C compiler and reinstall"

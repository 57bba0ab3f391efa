"""What is kept of an exception: never the exception itself, it would hold its traceback."""

from __future__ import annotations

#: Longest error text kept; more is cut on the caller's thread.
MAX_ERROR_CHARS = 1_000


def describe_error(exc: BaseException) -> tuple[str, str, str, int | None]:
    """(status, type, text, HTTP status) of an exception. Ended by its caller is ``cancelled``."""
    kind = type(exc)
    module = kind.__module__
    name = kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
    ended = isinstance(exc, GeneratorExit) or kind.__name__ == "CancelledError"
    code = getattr(exc, "status_code", None)
    if not isinstance(code, int):
        code = getattr(getattr(exc, "response", None), "status_code", None)
    known = code if isinstance(code, int) and not isinstance(code, bool) else None
    return "cancelled" if ended else "error", name[:256], str(exc)[:MAX_ERROR_CHARS], known

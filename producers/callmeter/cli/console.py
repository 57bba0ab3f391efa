"""The terminal, or a pipe that looks the same: no wrapping of tables that are read by programs."""

from __future__ import annotations

import shutil
import sys

from rich.console import Console

_PIPE_COLUMNS = 200


def console() -> Console:
    """Standard output; as wide as the terminal, or wide enough for a table in a pipe."""
    wide = shutil.get_terminal_size((_PIPE_COLUMNS, 24)).columns if sys.stdout.isatty() else None
    return Console(width=wide or _PIPE_COLUMNS, highlight=False, soft_wrap=False)

"""The command line: ``callmeter COMMAND``. ``main`` needs the ``cli`` extra and says so."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the documented exit code. Never raises."""
    try:
        from callmeter.cli.app import run
    except ModuleNotFoundError as exc:
        if exc.name not in ("click", "rich"):
            raise
        sys.stderr.write(
            "callmeter: the command line is not installed: pip install 'callmeter[cli]'\n"
        )
        return 78
    return run(sys.argv[1:] if argv is None else argv)

"""How a verification is shown, and which exit code it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from callmeter.errors import EXIT_INCOMPLETE, EXIT_NO, EXIT_OK

if TYPE_CHECKING:
    from rich.console import Console

    from callmeter_sinks.verify import VerifyResult


def exit_code(result: VerifyResult) -> int:
    """0 equal, 1 different, 2 equal as far as it can be verified."""
    if not result.equal:
        return EXIT_NO
    return EXIT_INCOMPLETE if result.gaps or result.unverifiable else EXIT_OK


def show_verdict(result: VerifyResult, out: Console, *, quiet: bool = False) -> int:
    """Print what differs, is missing or cannot be verified, and one closing line."""
    for check in result.checks:
        if not check.equal:
            out.print(f"[red]differs[/] {check.what}: raw {check.raw}, rollups {check.rollups}")
            for example in check.examples:
                out.print(f"        {example}", markup=False)
    for gap in result.gaps:
        out.print(f"missing {gap}", markup=False)
    for gone in result.unverifiable:
        out.print(f"unverifiable {gone.what}: {gone.reason}", markup=False)
    code = exit_code(result)
    if not quiet:
        verdict = {EXIT_OK: "equal", EXIT_NO: "DIFFERENT", EXIT_INCOMPLETE: "incomplete"}[code]
        out.print(f"verify: {verdict}, {len(result.checks)} checks")
    return code

"""``callmeter bench``: the benchmarks of the source tree, by name."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import click

from callmeter.errors import ConfigError, UsageError


@click.command(
    name="bench",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="",
)
@click.argument("name", required=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS]...")
def command(name: str | None, options: tuple[str, ...]) -> int:
    r"""Run the benchmark NAME with its own OPTIONS; without a name, list them.

    The benchmarks are part of the source tree, not of the wheel. Each prints its figures beside a
    floor or a peer measured in the same run; `--json` adds them as one line.

    \b
    Example: callmeter bench meter --json
    """
    programs = find_benchmarks()
    if name is None:
        for known, file in programs.items():
            click.echo(f"{known:12} {_about(file)}")
        return 0
    if name not in programs:
        raise UsageError(f"there is no benchmark {name!r}; there are: {', '.join(programs)}")
    return subprocess.run([sys.executable, str(programs[name]), *options], check=False).returncode


def find_benchmarks() -> dict[str, Path]:
    """Name to file; ``ConfigError`` where the package does not lie in its source tree."""
    directory = Path(__file__).resolve().parents[3] / "benchmarks"
    found = {f.stem.removeprefix("bench_"): f for f in sorted(directory.glob("bench_*.py"))}
    if not found:
        raise ConfigError(
            "the benchmarks are in the source tree: clone the repository and `make install`"
        )
    return found


def _about(file: Path) -> str:
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return said.partition("\n")[0]

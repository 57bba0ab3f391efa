"""Command lines of manifests: whether our command line knows them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import click
import pytest

from callmeter.cli.app import cli


@pytest.fixture
def quiet_root() -> Iterator[None]:
    """Parsing a command line sets up logging; the rest of the session keeps its own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def parse(name: str, words: Sequence[str]) -> click.Context:
    """Parse the words after ``callmeter`` and start nothing; an unknown option raises."""
    rest = list(words)
    command: click.Command = cli
    ctx = click.Context(cli)
    while isinstance(command, click.Group):
        found = command.get_command(ctx, rest.pop(0))
        assert found is not None, f"{name}: no such command"
        command = found
    return command.make_context(name, rest, resilient_parsing=False)

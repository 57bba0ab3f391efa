"""Every command that the documentation shows is one that the command line takes."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest

from callmeter.cli.app import cli
from support.operations import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
#: A line of a block: indented or fenced; its prompt, variables before the command, its comment.
_BLOCK = re.compile(r"^(?:```\w*\n(.*?)^```|((?: {4,}\S.*\n)+))", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\s*(?:[A-Z_]+=\S+ +)*callmeter +((?:.*\\\n)*.*)$", re.MULTILINE)
#: Left out of examples because it was said above.
_ELLIPSIS = "…"


def commands(page: Path) -> Iterator[str]:
    """The arguments of each command in a page's blocks."""
    for block in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        for found in _COMMAND.finditer(block[1] or block[2]):
            line = found[1].replace("\\\n", " ")
            yield re.split(r"\s#|\s\|\s|\s&&\s|;|\s>\s", line, maxsplit=1)[0].strip()


SHOWN = sorted({(page.name, line) for page in PAGES for line in commands(page)})


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What examples take for granted: where Kafka and the store are; files that they name."""
    monkeypatch.setenv("CALLMETER_KAFKA", "kafka://localhost:9092")
    monkeypatch.setenv("CALLMETER_STORE", "clickhouse://localhost:8123/callmeter")
    monkeypatch.chdir(tmp_path)
    # Parsing a command line sets up logging; the rest of the session keeps its own.
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_the_documentation_shows_commands() -> None:
    assert len(SHOWN) > 30
    assert {page for page, _ in SHOWN} >= {"runbook.md", "operations.md", "quickstart.md"}


@pytest.mark.parametrize(("page", "line"), SHOWN)
def test_the_command_is_taken(page: str, line: str) -> None:
    words: list[str] = []
    for word in shlex.split(line):
        if word != _ELLIPSIS:
            words.append(word)
        elif words and words[-1].startswith("--"):
            words.pop()  # an option whose value was said above: the surroundings have it
    for word in words:
        # An example names a file that its reader has.
        if (
            re.fullmatch(r"[\w./-]+\.(csv|jsonl?|toml|pem|crt|key|tar|tar\.gz)", word)
            and not Path(word).exists()
        ):
            Path(word).parent.mkdir(parents=True, exist_ok=True)
            Path(word).touch()
    command: click.Command = cli
    ctx = click.Context(cli)
    while isinstance(command, click.Group) and words:
        if words[0].startswith("-"):
            break
        found = command.get_command(ctx, words.pop(0))
        assert found is not None, f"{page}: callmeter {line}: no such command"
        command = found
    try:
        with suppress(click.exceptions.Exit):  # --help and --version print and end
            command.make_context("callmeter", words, resilient_parsing=False)
    except click.UsageError as exc:
        pytest.fail(f"{page}: callmeter {line}: {exc.format_message()}")

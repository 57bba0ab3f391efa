"""The group of commands, loaded lazily, and the one place where errors become exit codes."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence

import click

from callmeter._version import __version__
from callmeter.errors import CallmeterError, MissingExtraError

#: Command to its module under ``callmeter.cli``; each module has a click command named ``command``.
COMMANDS = {
    "up": "up",
    "demo": "demo",
    "replay": "replay",
    "report": "report",
    "export": "export",
    "top": "top",
    "tail": "tail",
    "trace": "trace",
    "experiment": "experiment",
    "gaps": "gaps",
    "verify": "verify",
    "repair": "repair",
    "bill": "bill",
    "backup": "backup",
    "restore": "restore",
    "forget": "forget",
    "budget": "budget",
    "prices": "prices",
    "reprice": "reprice",
    "topics": "topics",
    "migrate": "migrate",
    "collector": "collector",
    "keys": "keys",
    "dashboard": "dashboard",
    "worker": "worker",
    "sink": "sink",
    "notify": "notify",
    "run-metadata": "run_metadata",
    "doctor": "doctor",
    "bench": "bench",
}

EXIT_USAGE = 64
EXIT_BUG = 70
EXIT_INTERRUPTED = 130
_PIPE_CLOSED = 141

#: Top-level modules of optional parts, and the extra that brings each.
_EXTRAS = {
    "aiokafka": "kafka",
    "cramjam": "kafka",
    "faust": "processors",
    "mode": "processors",
    "callmeter_processors": "processors",
    "clickhouse_connect": "sinks",
    "callmeter_sinks": "sinks",
    "chdb": "embedded",
    "aiohttp": "collector",
    "zstandard": "collector",
    "jinja2": "dashboard",
    "genai_prices": "prices",
}

_EPILOG = """\b
Exit codes: 0 done, 1 the answer is no, 2 unverifiable or incomplete, 64 wrong usage,
65 bad input data, 69 a service is not reachable, 70 a bug, 73 cannot write,
78 bad configuration."""


class LazyGroup(click.Group):
    """Imports a command's module only when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        loaded: click.Command = importlib.import_module(f"callmeter.cli.{module}").command
        _keep_lines(loaded)
        return loaded


def _keep_lines(command: click.Command) -> None:
    """Docstrings are raw text, so click's mark of lines that are not to be wrapped is made here."""
    if command.help:
        command.help = command.help.replace("\\b\n", "\b\n")
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _keep_lines(each)


@click.group(
    cls=LazyGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="callmeter")
def cli() -> None:
    """Meters LLM programs: what every call costs, how it behaves, and when to stop.

    Start with `callmeter demo`, then `callmeter up` and your own program.
    """


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are one line on stderr."""
    try:
        result = cli.main(args=list(argv), prog_name="callmeter", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message())
        return 0
    except click.UsageError as exc:
        return _say(_usage_line(exc), EXIT_USAGE)
    except click.ClickException as exc:
        return _say(exc.format_message(), EXIT_USAGE)
    except CallmeterError as exc:
        return _say(str(exc), exc.exit_code)
    except ModuleNotFoundError as exc:
        extra = _EXTRAS.get((exc.name or "").partition(".")[0])
        if extra is None:
            return _bug(exc)
        missing = MissingExtraError(exc.name or "a part", extra)
        return _say(str(missing), missing.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader (head, less) has gone; further writes at exit must not fail loudly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except Exception as exc:  # noqa: BLE001  # the last stop: whatever it is, it becomes exit 70
        return _bug(exc)


def _usage_line(exc: click.UsageError) -> str:
    where = exc.ctx.command_path if exc.ctx else "callmeter"
    return f"{exc.format_message()} (see `{where} --help`)"


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"callmeter: {' '.join(message.split())}\n")
    return code


def _bug(exc: BaseException) -> int:
    if logging.getLogger("callmeter").isEnabledFor(logging.DEBUG):
        traceback.print_exception(exc)
    return _say(
        f"this is a bug, please report it with the output of `-v`: {type(exc).__name__}: {exc}",
        EXIT_BUG,
    )

"""``run``: the context of one run, which owns its task, its timestamp and the ``-dm`` switch."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextvars import Token
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from callmeter.compat.sygra import files, state, wire
from callmeter.compat.sygra.collector import get_metadata_collector
from callmeter.compat.sygra.execution import TIMESTAMP, ExecutionContext, local_now
from callmeter.compat.sygra.state import SCOPE, RunState
from callmeter.compat.sygra.switches import flag
from callmeter.sdk import api


class run:  # noqa: N801  # what users write is ``with run(task=...)``
    """One run of a task: starts from zero, and writes its metadata document when it ends.

    ``disable_metadata`` is what was given to ``-dm``: True, or 1, true, yes as text; the
    environment (``SYGRA_DISABLE_METADATA``) disables too. Disabled, nothing is recorded or written
    and the run goes on unchanged. ``output_with_ts`` puts the timestamp that the document's name
    has into the output's name as well. A run that raises is documented all the same.

    >>> with run(task="tasks.examples.summaries", output_with_ts=True) as this:
    ...     for record in records:
    ...         this.record(success=handle(record))
    ...     this.write_output(results)
    """

    def __init__(
        self,
        task: str,
        *,
        run_name: str = "",
        output_dir: str | os.PathLike[str] | None = None,
        batch_size: int = 50,
        checkpoint_interval: int = 100,
        resumable: bool = False,
        debug: bool = False,
        output_with_ts: bool = False,
        disable_metadata: bool | str | None = None,
        timestamp: str | None = None,
    ) -> None:
        self.task = task
        self.output_with_ts = output_with_ts
        #: Where the document was written; None before the end, and where none was.
        self.metadata_path: Path | None = None
        self._settings: dict[str, Any] = {
            "run_name": run_name,
            "output_dir": None if output_dir is None else os.fspath(output_dir),
            "batch_size": batch_size,
            "checkpoint_interval": checkpoint_interval,
            "resumable": resumable,
            "debug": debug,
        }
        self._paths = ExecutionContext(task_name=task, output_dir=self._settings["output_dir"])
        self.timestamp = timestamp or self._free_timestamp()
        self._disable = flag(disable_metadata)
        self._before: bool | None = None
        self._pid = os.getpid()
        self._state = RunState()
        self._token: Token[RunState | None] | None = None

    @classmethod
    def from_args(cls, argv: Sequence[str] | None = None, **settings: Any) -> Self:
        """A run from SyGra's command line; what it does not know is left to the program.

        ``-t/--task``, ``-n/--num_records``, ``-b/--batch_size``, ``-ci/--checkpoint_interval``,
        ``-rn/--run_name``, ``-od/--output_dir``, ``-owt/--output_with_ts``, ``-r/--resume``,
        ``-d/--debug``, ``-dm/--disable_metadata``. ``settings`` are those of ``run``; the command
        line wins. The number of records is in ``num_records``.
        """
        given = vars(_parser().parse_known_args(argv)[0])
        num_records = given.pop("num_records")
        for name in ("output_with_ts", "resumable", "debug"):
            if given[name] is not None:
                given[name] = flag(given[name])
        settings.update({name: value for name, value in given.items() if value is not None})
        if "task" not in settings:
            raise SystemExit("a task is needed: --task NAME")
        made = cls(**settings)
        made.num_records = num_records
        return made

    #: How many records the command line asks for; None for all.
    num_records: int | None = None

    @property
    def run_id(self) -> str:
        """The id under which ``callmeter run-metadata`` finds this run in the store."""
        return self._state.id

    @property
    def output_path(self) -> Path:
        """Where the output belongs: ``output.json``, or ``output_<timestamp>.json``."""
        name = f"output_{self.timestamp}.json" if self.output_with_ts else "output.json"
        return files.output_directory(self._paths) / name

    def record(self, success: bool = True) -> None:
        """One record of the dataset is done."""
        get_metadata_collector().record_processed_record(success)

    def write_output(self, records: list[Any]) -> Path:
        """Write the results as JSON and return where; ``OSError`` if that is not possible."""
        files.write_json(self.output_path, records)
        return self.output_path

    def __enter__(self) -> Self:
        collector = get_metadata_collector()
        self._before = collector.chosen
        if self._disable:
            collector.set_enabled(False)
        else:
            collector.set_enabled(self._before)  # without a choice, what the environment says now
        state.begin(self._state)
        self._token = SCOPE.set(self._state)
        self._labels = api.tags(**({wire.RUN_TAG: self.run_id} if collector.is_enabled() else {}))
        self._labels.__enter__()
        collector.set_execution_context(self.task, run_timestamp=self.timestamp, **self._settings)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        collector = get_metadata_collector()
        if os.getpid() == self._pid:  # a forked child has neither the run's data nor its file
            self.metadata_path = collector.save_metadata()
        self._labels.__exit__(kind, exc, tb)
        if self._token is not None:
            try:
                SCOPE.reset(self._token)
            except ValueError:
                # Left in another task: that one's context never was in this run.
                self._token = None
        state.leave(self._state)
        if self._disable:
            collector.set_enabled(self._before)

    def _free_timestamp(self) -> str:
        """Now, or the next second whose document is not there yet: two runs never share a file."""
        moment = local_now()
        while files.metadata_path(self._paths, moment.strftime(TIMESTAMP)).exists():
            moment += timedelta(seconds=1)
        return moment.strftime(TIMESTAMP)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-t", "--task")
    parser.add_argument("-n", "--num_records", type=int)
    parser.add_argument("-b", "--batch_size", type=int)
    parser.add_argument("-ci", "--checkpoint_interval", type=int)
    parser.add_argument("-rn", "--run_name")
    parser.add_argument("-od", "--output_dir")
    parser.add_argument("-owt", "--output_with_ts")
    parser.add_argument("-r", "--resume", dest="resumable")
    parser.add_argument("-d", "--debug")
    parser.add_argument("-dm", "--disable_metadata")
    return parser

"""The one collector of a process, under the names of SyGra's."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from callmeter.compat.sygra import costs, files, state, wire
from callmeter.compat.sygra.execution import (
    TIMESTAMP,
    UNKNOWN_TASK,
    ExecutionContext,
    local_now,
)
from callmeter.compat.sygra.recording import LiveNode, record_request
from callmeter.compat.sygra.records import OK, Execution, Request, Tokens
from callmeter.compat.sygra.repository import git_context
from callmeter.compat.sygra.state import RunState
from callmeter.compat.sygra.switches import disabled_by_environment
from callmeter.money import float_to_pico
from callmeter.sdk import api

logger = logging.getLogger("callmeter.sygra")


class MetadataCollector:
    """Gathers what a run does, for its metadata document, and hands every event to the meter.

    There is one in a process (``get_metadata_collector``). Thread-safe. While disabled, recording
    is a no-op; what was gathered before stays. Runs never mix: see ``run``.
    """

    def __init__(self) -> None:
        #: What code has chosen; None leaves it to the environment.
        self.chosen: bool | None = None
        self._enabled = not disabled_by_environment()

    # -- switch ----------------------------------------------------------------------------------

    def is_enabled(self) -> bool:
        """Whether anything is recorded."""
        return self._enabled

    def set_enabled(self, enabled: bool | None) -> None:
        """Switch recording on or off, whatever the environment says; None: as that says."""
        self.chosen = enabled
        self._enabled = not disabled_by_environment() if enabled is None else bool(enabled)

    def reset(self) -> None:
        """Forget all that was gathered; the switch stays as it is."""
        state.current().clear()

    @property
    def run_id(self) -> str:
        """The id under which ``callmeter run-metadata`` finds the run in the store."""
        return state.current().id

    # -- context ---------------------------------------------------------------------------------

    def set_execution_context(  # noqa: PLR0917  # SyGra's signature
        self,
        task_name: str,
        run_name: str | None = None,
        output_dir: str | os.PathLike[str] | None = None,
        batch_size: int = 50,
        checkpoint_interval: int = 100,
        resumable: bool = False,
        debug: bool = False,
        run_timestamp: str | None = None,
    ) -> None:
        """Name the run and start its clock. On a run that has ended, a new one begins."""
        if not self._enabled:
            return
        if api.default_client() is None:
            api.init()
        costs.prepare()
        run = state.current()
        if run.ended:
            run.clear()
        git = git_context()
        with run.lock:
            run.execution = ExecutionContext(
                task_name=task_name,
                run_name=run_name or "",
                output_dir=None if output_dir is None else os.fspath(output_dir),
                batch_size=batch_size,
                checkpoint_interval=checkpoint_interval,
                resumable=resumable,
                debug=debug,
                start_time=local_now(),
                timestamp=run_timestamp,
                git=git,
            )
        self._tell(run)

    def set_dataset_metadata(  # noqa: PLR0917  # SyGra's signature
        self,
        source_type: str,
        source_path: str | None = None,
        num_records: int | None = None,
        start_index: int = 0,
        dataset_version: str | None = None,
        dataset_hash: str | None = None,
    ) -> None:
        """Say where the records come from; ``num_records`` None leaves the count as it is."""
        if not self._enabled:
            return
        run = state.current()
        with run.lock:
            dataset = run.dataset
            dataset.source_type, dataset.source_path = source_type, source_path
            if num_records is not None:
                dataset.num_records_processed = num_records
            dataset.start_index = start_index
            dataset.dataset_version, dataset.dataset_hash = dataset_version, dataset_hash

    def add_dataset_source(
        self,
        alias: str,
        source_type: str,
        source_path: str | None = None,
        *,
        join_type: str | None = None,
        **more: Any,
    ) -> None:
        """One of several sources; from the second on the dataset is ``multi-source``."""
        if not self._enabled:
            return
        run = state.current()
        with run.lock:
            run.dataset.sources[alias] = {
                "source_type": source_type,
                "source_path": source_path,
                "join_type": join_type,
                **more,
            }

    # -- records ---------------------------------------------------------------------------------

    def record_model_request(  # noqa: PLR0917  # SyGra's signature
        self,
        model_name: str,
        node_name: str | None = None,
        latency: float = 0.0,
        response_code: int = OK,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
        total_tokens: int | None = None,
        is_retry: bool = False,
        model_config: Mapping[str, Any] | None = None,
        cost_usd: float | None = None,
    ) -> None:
        """One request that is over. ``latency`` in seconds, ``cost_usd`` as the provider said it.

        Without a cost the request is priced; without any count of tokens its usage is unknown.
        """
        if not self._enabled:
            return
        known = not (prompt_tokens is None and completion_tokens is None)
        prompt, completion = prompt_tokens or 0, completion_tokens or 0
        request = Request(
            model=model_name,
            latency_us=round(latency * 1_000_000),
            code=int(response_code),
            retry=is_retry,
            tokens=Tokens(prompt, completion, total_tokens or prompt + completion),
            cost_pico=None if cost_usd is None else float_to_pico(cost_usd),
        )
        usage = {"input": prompt, "output": completion} if known else None
        record_request(state.current(), request, model_config, usage, node_name)

    def record_node_execution(  # noqa: PLR0917  # SyGra's signature
        self,
        node_name: str,
        node_type: str,
        latency: float,
        success: bool,
        model_name: str | None = None,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        total_tokens: int = 0,
        cost_usd: float = 0.0,
    ) -> None:
        """One execution of a node that is over; ``track_node`` measures them by itself."""
        if not self._enabled:
            return
        prompt, completion = prompt_tokens or 0, completion_tokens or 0
        LiveNode.record(
            state.current(),
            Execution(
                node=node_name,
                node_type=node_type,
                model=model_name,
                latency_us=round(latency * 1_000_000),
                failed=not success,
                tokens=Tokens(prompt, completion, total_tokens or prompt + completion),
                cost_pico=float_to_pico(cost_usd or 0.0),
            ),
        )

    def record_processed_record(self, success: bool = True) -> None:
        """One record of the dataset is done."""
        if not self._enabled:
            return
        run = state.current()
        with run.lock:
            run.totals.add_record(success)

    # -- document --------------------------------------------------------------------------------

    def finalize_execution(self) -> None:
        """The run is over: stop its clock and send what only the run as a whole knows."""
        if not self._enabled:
            return
        run = state.current()
        with run.lock:
            run.execution.end_time = local_now()
            first = not run.ended
            run.ended = True
        self._tell(run)
        if first:
            self._send_run(run)

    def get_metadata_summary(self) -> dict[str, Any]:
        """The document of what was gathered so far; its keys are in the guide."""
        return state.current().summary()

    def save_metadata(self, output_path: str | os.PathLike[str] | None = None) -> Path | None:
        """Write the document, by default to ``<output_dir>/metadata/metadata_<task>_<ts>.json``.

        Returns the path; None while disabled, and, after a warning, if it cannot be written.
        """
        if not self._enabled:
            return None
        run = state.current()
        if run.execution.end_time is None:
            self.finalize_execution()
        else:
            self._tell(run)
        stamp = run.execution.timestamp or local_now().strftime(TIMESTAMP)
        path = Path(output_path) if output_path else files.metadata_path(run.execution, stamp)
        try:
            files.write_json(path, run.summary())
        except OSError as exc:
            logger.warning("the metadata of run %s could not be written: %s", run.id, exc)
            return None
        logger.info("metadata of run %s written to %s", run.id, path)
        return path

    # -- to the meter ----------------------------------------------------------------------------

    def _tell(self, run: RunState) -> None:
        """Send what no single event knows, if it has changed since it was last sent."""
        client = api.default_client()
        facts = run.facts()
        if client is None or facts == run.told:
            return
        run.told = facts
        client.annotation(wire.RUN_NOTE, call=run.id, metadata=facts)

    def _send_run(self, run: RunState) -> None:
        """The run itself, as a program's run."""
        client = api.default_client()
        execution = run.execution
        if client is None or execution.start_time is None or execution.end_time is None:
            return
        took = (execution.end_time - execution.start_time) // timedelta(microseconds=1)
        task = None if execution.task_name == UNKNOWN_TASK else execution.task_name[:256]
        client.emit_event(
            wire.finished_call(
                ended_us=round(execution.end_time.timestamp() * 1_000_000),
                latency_us=max(0, took),
                operation="program",
                run_id=run.id,
                failed=False,
                attributes={wire.KIND: "run"},
                call_id=run.id,
                name=task,
                program=task,
            )
        )


_collector = MetadataCollector()


def get_metadata_collector() -> MetadataCollector:
    """The collector of this process: always the same object."""
    return _collector


def _in_child() -> None:
    """After a fork: nothing of the parent's data."""
    state.start_over()
    costs.start_over()


os.register_at_fork(after_in_child=_in_child)

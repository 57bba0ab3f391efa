"""Language model calls as JSON lines: what fine-tuning and curation start from.

One file for each program and module under ``base_dir``; keys as Synalinks' ``hooks.Recorder`` has
them. Costs are floats here, as its readers expect; the record in callmeter stays exact.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import orjson

from callmeter._version import __version__
from callmeter.compat.synalinks.current import RUN, ModuleCall
from callmeter.compat.synalinks.hook import Hook
from callmeter.compat.synalinks.modules import Role, name_of, role_of
from callmeter.compat.synalinks.payload import leaves
from callmeter.compat.synalinks.reading import Reading
from callmeter.money import from_pico
from callmeter.sdk.containment import CONTAINMENT

_MESSAGE_KEYS = ("role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name")
_UNSAFE = str.maketrans(dict.fromkeys('/\\:*?"<>|\0', "_"))


class Recorder(Hook):
    """Appends one JSON line for each language model call to
    ``<base_dir>/<program>/<module>/<module>_<time>.jsonl``.

    A line has the call's ids, times, ``usage``, ``cost`` (USD), ``messages`` with the answer as the
    last one, ``inputs_hash`` (SHA-256 of the messages sent) and ``config_hash`` (of the model's
    configuration). A failed call has ``usage`` null and its ``exception``. ``base_dir`` defaults to
    ``SYNALINKS_HOME``, else ``~/.synalinks``. Symbolic calls are left out. Never raises.
    """

    def __init__(self, base_dir: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        home = os.environ.get("SYNALINKS_HOME") or "~/.synalinks"
        self.base_dir = Path(base_dir or home).expanduser()
        self._lock = threading.Lock()
        self._files: dict[tuple[str, str], Path] = {}

    def on_call_end(
        self, call_id: str, outputs: Any = None, exception: Any = None, **more: Any
    ) -> None:
        """A call of this hook's module has ended; anything but a language model is left out."""
        run = RUN.get()
        if run is not None and role_of(self.module) is Role.LANGUAGE_MODEL and not run.symbolic:
            run.read()
            self.write(run, outputs, exception)

    def write(self, run: ModuleCall, outputs: Any, exception: Any) -> None:
        """Append the line of a finished call."""
        try:
            line = orjson.dumps(_record(run, outputs, exception), default=str) + b"\n"
            program, module = _origin(run)
            with self._lock, self._file(program, module).open("ab") as file:
                file.write(line)
        except Exception as exc:  # noqa: BLE001  # a full disk is no reason to fail the model's call
            CONTAINMENT.caught("Recorder", exc)

    def _file(self, program: str, module: str) -> Path:
        path = self._files.get((program, module))
        if path is None:
            folder = self.base_dir / program
            if module != program:
                folder /= module
            folder.mkdir(parents=True, exist_ok=True)
            stamp = time.strftime("%Y%m%d-%H%M%S")
            path = self._files[program, module] = folder / f"{module}_{stamp}.jsonl"
        return path


def _origin(run: ModuleCall) -> tuple[str, str]:
    """Names of the outermost module and of the one that asked the model."""
    asking = run
    while asking.parent is not None and asking.role is not Role.MODULE:
        asking = asking.parent
    outermost = asking
    while outermost.parent is not None:
        outermost = outermost.parent
    return _safe(name_of(outermost.module)), _safe(name_of(asking.module))


def _safe(name: str) -> str:
    return name.translate(_UNSAFE).lstrip(".") or "_"


def _record(run: ModuleCall, outputs: Any, exception: Any) -> dict[str, Any]:
    program, module = _origin(run)
    given = [_messages(leaf.get_json()) for leaf in leaves(run.given) if hasattr(leaf, "get_json")]
    messages = [message for each in given for message in each]
    answers = [leaf.get_json() for leaf in leaves(outputs) if hasattr(leaf, "get_json")]
    answer = answers[0] if len(answers) == 1 else answers or None
    failure = exception or run.error or (run.trouble if outputs is None else None)
    reading = run.reading or Reading()
    config = _config(run.module)
    record = {
        "callmeter_version": __version__,
        "call_id": run.call_id,
        "parent_call_id": run.parent.call_id if run.parent is not None else None,
        "program": program,
        "module": module,
        "timestamp": run.began_s,
        "duration": run.elapsed_s,
        "usage": None if failure is not None else _usage(reading),
        "cost": None if reading.cost_pico is None else float(from_pico(reading.cost_pico)),
        "messages": messages + ([] if failure is not None or answer is None else [_reply(answer)]),
        "inputs_hash": _hash(messages),
        "outputs": None if failure is not None else answer,
        "config": config,
        "config_hash": _hash(config),
    }
    if failure is not None:
        record["exception"] = str(failure)
    return record


def _usage(reading: Reading) -> dict[str, int] | None:
    usage = reading.usage
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.get("input", 0),
        "completion_tokens": usage.get("output", 0),
        "total_tokens": usage.get("input", 0) + usage.get("output", 0),
        "cached_tokens": usage.get("cache_read", 0),
        "cache_creation_tokens": usage.get("cache_write", 0),
        "reasoning_tokens": usage.get("reasoning", 0),
    }


def _messages(value: Any) -> list[dict[str, Any]]:
    """Chat messages out of what the model was given; anything else is one of the user's."""
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        return [_message(each) for each in value["messages"] if isinstance(each, dict)]
    if isinstance(value, dict) and "role" in value:
        return [_message(value)]
    return [{"role": "user", "content": orjson.dumps(value, default=str).decode()}]


def _message(message: dict[str, Any]) -> dict[str, Any]:
    return {key: message[key] for key in _MESSAGE_KEYS if message.get(key) is not None}


def _reply(answer: Any) -> dict[str, Any]:
    if isinstance(answer, dict) and "role" in answer:
        return _message(answer)
    return {"role": "assistant", "content": orjson.dumps(answer, default=str).decode()}


def _config(model: Any) -> dict[str, Any]:
    """Class and configuration; a model that cannot say it is known by class and name."""
    config: dict[str, Any] = {"class_name": type(model).__name__}
    get_config = getattr(model, "get_config", None)
    config["config"] = get_config() if callable(get_config) else {"name": name_of(model)}
    return config


def _hash(value: Any) -> str:
    """SHA-256 of the value as JSON with sorted keys, as hex."""
    data = orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return hashlib.sha256(data).hexdigest()

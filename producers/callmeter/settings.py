"""Every setting of the SDK in one typed list: type, default, environment name and meaning.

Argument > environment (``CALLMETER_<NAME>``) > ``callmeter.toml`` > default. A setting marked
secret may come from the file that ``CALLMETER_<NAME>_FILE`` names, and no ``repr`` shows it.
``docs/reference/settings.md`` is generated from this file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from callmeter.errors import ConfigError

ENV_PREFIX = "CALLMETER_"
CONFIG_FILE = "callmeter.toml"
TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off", ""})


def _setting(
    default: Any,
    doc: str,
    *,
    secret: bool = False,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
    shown: str | None = None,
) -> Any:
    meta = {
        "doc": doc,
        "secret": secret,
        "least": least,
        "most": most,
        "choices": choices,
        "shown": shown,
    }
    return field(default=default, repr=not secret, metadata=meta)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Resolved settings of one client. Durations in seconds, sizes in bytes."""

    url: str | None = _setting(
        None,
        "Where envelopes go: `kafka://host:port[,host:port]`, `kafka+ssl://…`, `http://…`, "
        "`https://…`, `jsonl:PATH`, `memory:` or `noop:`. Without it the local collector at "
        "127.0.0.1:4248 is used if it answers, else nothing is metered.",
    )
    project: str = _setting(
        "default", "What an API key is bound to, and what budgets and reports are kept by."
    )
    environment: str = _setting("", "For example `production` or `staging`.")
    service: str = _setting("", "The program that makes the calls.")
    api_key: str | None = _setting(None, "Key for a collector.", secret=True)
    spool_dir: str | None = _setting(
        None, "Directory that keeps envelopes while the backend is away, over restarts too."
    )
    durable: bool = _setting(
        False,
        "Write every envelope to the spool before it is sent: what was accepted `sync_interval_s` "
        "before the process dies is delivered by the next. The spool is `.callmeter/spool` if "
        "`spool_dir` names none.",
    )
    spool_max_bytes: int = _setting(
        2**30,
        "Disk for the spool of one process, what dead ones left included. Beyond it `drop` says "
        "what goes.",
        least=2**20,
        shown="1 GiB",
    )
    sync_interval_s: float = _setting(
        0.1,
        "With `durable`: how long an accepted event may be in memory alone. It is in the spool's "
        "file within half of it and on the disk itself within all of it, as long as the process "
        "can keep up.",
        least=0.005,
        most=60,
    )
    max_queue_bytes: int = _setting(
        64 * 2**20,
        "Memory for everything that is not yet acknowledged: queued events and sealed envelopes.",
        least=64 * 2**10,
        shown="64 MiB",
    )
    drop: str = _setting(
        "oldest", "What goes when the memory is used up.", choices=("oldest", "newest")
    )
    flush_delay_s: float = _setting(
        0.25, "How long an event may wait for others to share its envelope.", least=0.0, most=3600
    )
    max_batch_events: int = _setting(500, "Events in one envelope, at most.", least=1, most=500)
    shutdown_timeout_s: float = _setting(
        5.0, "How long the end of the process may take for what is not yet delivered.", least=0.0
    )
    sample_rate: float = _setting(
        1.0,
        "Share of traces that are recorded; the root decides, children follow.",
        least=0.0,
        most=1.0,
    )
    redact_keys: tuple[str, ...] = _setting(
        (), "Keys whose values become `[REDACTED]`, at any depth and in any case."
    )
    record_inputs: bool = _setting(False, "Record what calls were given.")
    record_outputs: bool = _setting(False, "Record what calls answered.")
    max_text_chars: int = _setting(
        500, "Longest text inside recorded inputs and outputs; the rest is cut and marked.", least=0
    )
    tags: Mapping[str, str] | None = _setting(
        None, "Tags of every call, as `key=value,key=value` in the environment."
    )
    heartbeat_s: float = _setting(
        10.0,
        "How often the process says that it lives and how many calls are open; 0 for never.",
        least=0.0,
    )
    compression: str = _setting(
        "auto",
        "Codec of what is sent; `auto` takes zstd where it is installed, else gzip.",
        choices=("auto", "zstd", "lz4", "gzip", "none"),
    )
    timeout_s: float = _setting(
        10.0, "How long an envelope may stay unanswered before it is sent again.", least=0.001
    )
    ca_file: str | None = _setting(
        None, "Certificate authorities that a collector is checked with."
    )
    prefix: str | None = _setting(
        None, "Topic prefix on Kafka where the URL names none.", shown="callmeter"
    )
    handle_signals: bool = _setting(
        True, "Deliver what is queued on SIGTERM, then let the signal end the process as before."
    )
    disabled: bool = _setting(False, "Turn everything into a no-op.")


#: Read from the environment by single functions, so that they hold before any ``init``.
SWITCHES: Mapping[str, str] = {
    "CALLMETER_RAISE": "Raise the SDK's own errors instead of logging them, as under test.",
    "CALLMETER_CONFIG": "Path of the configuration file, if it is not `./callmeter.toml`.",
}


def resolve(
    given: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Settings from arguments, environment, file and defaults; an argument of None is not given.

    ``ConfigError`` in one line for a bad value; a secret is never part of it.
    """
    environ = os.environ if environ is None else environ
    given = {k: v for k, v in (given or {}).items() if v is not None}
    from_file = read_config_file(environ)
    values: dict[str, Any] = {}
    for item in fields(Settings):
        name = item.name
        if name in given:
            values[name] = _checked(item, given[name], f"argument {name}")
        elif (text := _from_environ(item, environ)) is not None:
            values[name] = _parsed(item, text, ENV_PREFIX + name.upper())
        elif name in from_file:
            values[name] = _checked(item, from_file[name], f"{name} in {CONFIG_FILE}")
    unknown = given.keys() - {f.name for f in fields(Settings)}
    if unknown:
        raise ConfigError(f"unknown setting {min(unknown)!r}")
    return Settings(**values)


def is_true(text: str | None) -> bool:
    """Whether a switch in the environment is on: 1, true, yes or on, in any case."""
    return text is not None and text.strip().lower() in TRUE


def read_config_file(environ: Mapping[str, str]) -> Mapping[str, Any]:
    """The top level of ``callmeter.toml``; empty if there is none. Tables belong to other parts."""
    named = environ.get(ENV_PREFIX + "CONFIG")
    path = Path(named or CONFIG_FILE)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if named:
            raise ConfigError(f"{path}: no such file (CALLMETER_CONFIG)") from None
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read: {exc}") from None
    import tomllib  # few programs have the file: 3 ms of every start otherwise

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path}: not TOML: {exc}") from None


def _from_environ(item: Field[Any], environ: Mapping[str, str]) -> str | None:
    name = ENV_PREFIX + item.name.upper()
    text = environ.get(name)
    if text or not item.metadata["secret"] or name + "_FILE" not in environ:
        return text or None
    try:
        return Path(environ[name + "_FILE"]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        raise ConfigError(f"{name}_FILE cannot be read: {reason}") from None


def _parsed(item: Field[Any], text: str, where: str) -> Any:
    """A value from the environment's text."""
    kind = str(item.type)
    try:
        if kind == "bool":
            lowered = text.strip().lower()
            if lowered not in TRUE | FALSE:
                raise ValueError
            return lowered in TRUE
        if kind == "int":
            return _checked(item, int(text), where)
        if kind == "float":
            return _checked(item, float(text), where)
    except ValueError:
        raise ConfigError(f"{where} is not {_KINDS[kind]}: {text[:60]!r}") from None
    if kind.startswith("tuple"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind.startswith("Mapping"):
        pairs = [part.partition("=") for part in text.split(",") if part.strip()]
        if not all(sep and key.strip() for key, sep, _ in pairs):
            raise ConfigError(f"{where} is not key=value,key=value")
        return {key.strip(): value.strip() for key, _, value in pairs}
    return _checked(item, text, where)


_KINDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "tuple[str, ...]": "a list of texts",
    "Mapping[str, str] | None": "a map from text to text",
}


def _checked(item: Field[Any], value: Any, where: str) -> Any:
    """A value of the right type and range, or ``ConfigError``."""
    kind, meta = str(item.type), item.metadata
    shown = "" if meta["secret"] else f": {value!r:.60}"
    wrong = ConfigError(f"{where} is not {_KINDS.get(kind, 'text')}{shown}")
    if kind == "bool":
        if not isinstance(value, bool):
            raise wrong
        return value
    if kind in ("int", "float"):
        if isinstance(value, bool) or not isinstance(value, int if kind == "int" else int | float):
            raise wrong
        return _in_range(value, meta["least"], meta["most"], f"{where} must be", shown)
    if kind.startswith("tuple"):
        if isinstance(value, str) or not all(isinstance(part, str) for part in value):
            raise wrong
        return tuple(value)
    if kind.startswith("Mapping"):
        if not isinstance(value, Mapping):
            raise wrong
        return {str(k): str(v) for k, v in value.items()}
    if not isinstance(value, str):
        raise wrong
    return _checked_text(item.name, value, meta["choices"], where)


def _checked_text(name: str, value: str, choices: tuple[str, ...], where: str) -> str:
    if choices and value not in choices:
        raise ConfigError(f"{where} must be one of {', '.join(choices)}: {value[:60]!r}")
    if name in ("project", "environment", "service") and len(value) > 256:
        raise ConfigError(f"{where} is longer than 256 characters")
    if name == "project" and not value:
        raise ConfigError(f"{where} is empty")
    return value


def _in_range(value: float, low: float | None, high: float | None, must: str, shown: str) -> float:
    if math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high):
        return value
    bounds = f"at least {low or 0:.15g}" if high is None else f"from {low or 0:.15g} to {high:.15g}"
    raise ConfigError(f"{must} {bounds}{shown}")


def settings_page() -> str:
    """``docs/reference/settings.md``, generated: one row a setting."""
    rows = [
        "# Settings",
        "",
        "Generated from `callmeter.settings`; change it there.",
        "Argument > environment > `callmeter.toml` (top level) > default.",
        "",
        "| argument of `init` | environment | type | default | meaning |",
        "|---|---|---|---|---|",
    ]
    for item in fields(Settings):
        meta, env = item.metadata, f"`{ENV_PREFIX}{item.name.upper()}`"
        if meta["secret"]:
            env += f" or `{ENV_PREFIX}{item.name.upper()}_FILE`"
        kind = str(item.type).removesuffix(" | None").replace("|", "\\|")
        shown = meta["shown"] or ("" if item.default in (None, "", ()) else f"`{item.default}`")
        doc = meta["doc"] + (f" One of {', '.join(meta['choices'])}." if meta["choices"] else "")
        rows.append(f"| `{item.name}` | {env} | {kind} | {shown} | {doc} |")
    rows += [
        "",
        "Switches that are read from the environment alone:",
        "",
        "| name | meaning |",
        "|---|---|",
    ]
    rows += [f"| `{name}` | {doc} |" for name, doc in SWITCHES.items()]
    return "\n".join([*rows, ""])

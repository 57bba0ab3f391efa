"""The configuration file of ``callmeter notify``: TOML, secrets from files or the environment.

    link = "https://callmeter.example/trace/{trace_id}"

    [retry]
    attempts = 15

    [[target]]
    name = "on-call"
    type = "webhook"                # webhook, slack or email
    url_file = "/run/secrets/hook"  # or url, or url_env
    secret_env = "HOOK_SECRET"      # or secret, or secret_file: signs
    severities = ["critical"]       # projects, kinds, rules as well

See docs/guides/notify.md.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from callmeter.errors import ConfigError
from callmeter_processors.notify.render import check_link
from callmeter_processors.notify.schedule import Retry
from callmeter_processors.notify.targets import (
    Choice,
    Email,
    Slack,
    Smtp,
    Target,
    Webhook,
    check_names,
    default_name,
)

_PATIENCE = Retry()


@dataclass(frozen=True, slots=True)
class NotifyConfig:
    """Whom to notify, how patiently, and what links point to."""

    targets: tuple[Target, ...]
    retry: Retry = _PATIENCE
    link: str = ""


class _Retry(Struct, frozen=True, forbid_unknown_fields=True):
    attempts: int = _PATIENCE.attempts
    base_s: float = _PATIENCE.base_s
    cap_s: float = _PATIENCE.cap_s


class _Target(Struct, forbid_unknown_fields=True):
    type: str
    name: str = ""
    url: str = ""
    url_file: str = ""
    url_env: str = ""
    secret: str = ""
    secret_file: str = ""
    secret_env: str = ""
    to: list[str] = []
    sender: str = ""
    smtp: str = ""
    password: str = ""
    password_file: str = ""
    password_env: str = ""
    ca_file: str = ""
    projects: list[str] = []
    kinds: list[str] = []
    severities: list[str] = []
    rules: list[str] = []


class _File(Struct, forbid_unknown_fields=True):
    target: list[_Target]
    link: str = ""
    retry: _Retry = _Retry()


def read_config(path: Path, environ: Mapping[str, str] = os.environ) -> NotifyConfig:
    """The file's configuration; ``ConfigError`` in one line, without secrets."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        raise ConfigError(f"{path}: cannot be read: {reason}") from None
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path}: {exc}") from None
    try:
        file = msgspec.convert(raw, _File)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"{path}: {exc}") from None
    try:
        return _config(file, environ)
    except ConfigError as exc:
        raise ConfigError(f"{path}: {exc}") from None


def _config(file: _File, environ: Mapping[str, str]) -> NotifyConfig:
    if file.link:
        check_link(file.link)
    retry = Retry(file.retry.attempts, file.retry.base_s, file.retry.cap_s)
    if retry.attempts < 1 or not 0 < retry.base_s <= retry.cap_s:
        raise ConfigError("[retry] needs attempts of at least 1 and 0 < base_s <= cap_s")
    targets = tuple(_target(each, environ) for each in file.target)
    check_names(targets)
    return NotifyConfig(targets, retry, file.link)


def _target(each: _Target, environ: Mapping[str, str]) -> Target:
    choice = Choice.of(
        projects=each.projects, kinds=each.kinds, severities=each.severities, rules=each.rules
    )
    if each.type == "email":
        password = secret_of(
            environ, "password", each.password, each.password_file, each.password_env
        )
        smtp = Smtp.from_url(each.smtp, password, each.ca_file or None)
        to = tuple(each.to)
        name = each.name or default_name("email", ",".join(to))
        return Email(
            name=name, to=to, smtp=smtp, sender=each.sender or (to or ("",))[0], choice=choice
        )
    url = secret_of(environ, "url", each.url, each.url_file, each.url_env) or ""
    name = each.name or default_name(each.type, url)
    if each.type == "slack":
        return Slack(name=name, url=url, choice=choice)
    if each.type == "webhook":
        secret = secret_of(environ, "secret", each.secret, each.secret_file, each.secret_env)
        return Webhook(name=name, url=url, secret=secret, choice=choice)
    raise ConfigError(f"a target of type {each.type[:60]!r}: there are webhook, slack and email")


def secret_of(
    environ: Mapping[str, str], what: str, given: str, path: str, variable: str
) -> str | None:
    """A value given as it is, in a file, or in the environment; None if in none of them."""
    if sum(map(bool, (given, path, variable))) > 1:
        raise ConfigError(f"give one of {what}, {what}_file and {what}_env")
    if path:
        try:
            given = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
            raise ConfigError(f"{what}_file {path}: cannot be read: {reason}") from None
    if variable:
        given = environ.get(variable, "")
    if not given and (path or variable):
        raise ConfigError(f"{path or variable} holds no {what}")
    return given or None

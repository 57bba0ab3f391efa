"""The configuration file: what it can say, and that what is wrong is said without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from callmeter.errors import ConfigError
from callmeter_processors.notify.config import read_config
from callmeter_processors.notify.schedule import Retry
from callmeter_processors.notify.targets import Choice, Email, Slack, Webhook
from support.alerting import alert

FULL = """
link = "https://callmeter.example/trace/{trace_id}"
[retry]
attempts = 5
[[target]]
name = "on-call"
type = "webhook"
url = "https://hook.example/x"
secret_env = "HOOK_SECRET"
severities = ["critical"]
[[target]]
type = "slack"
url_file = "%s"
projects = ["shop"]
kinds = ["threshold", "slo"]
[[target]]
type = "email"
to = ["ops@example.org"]
smtp = "smtp://u@mail.example.org"
password_env = "MAIL"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "notify.toml"
    path.write_text(text)
    return path


def test_everything_a_file_can_say(tmp_path: Path) -> None:
    (tmp_path / "slack").write_text("https://hooks.slack.example/T/B/x\n")
    path = written(tmp_path, FULL % (tmp_path / "slack"))
    config = read_config(path, {"HOOK_SECRET": "s", "MAIL": "p"})
    hook, slack, mail = config.targets
    assert isinstance(hook, Webhook)
    assert (hook.name, hook.secret) == ("on-call", "s")
    assert isinstance(slack, Slack)
    assert slack.url == "https://hooks.slack.example/T/B/x"
    assert slack.name.startswith("slack-")
    assert isinstance(mail, Email)
    assert (mail.smtp.username, mail.smtp.password, mail.sender) == ("u", "p", "ops@example.org")
    assert config.retry == Retry(attempts=5)
    assert config.link.endswith("{trace_id}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "target"),
        ("target = []", "nobody to notify"),
        ("[[target]]\ntype = 'pager'", "webhook, slack and email"),
        ("[[target]]\ntype = 'webhook'\nurl = 'ftp://SECRET'", "http"),
        ("[[target]]\ntype = 'webhook'\nurl = 'http://x'\ncolour = 1", "colour"),
        ("[[target]]\ntype = 'slack'\nurl_file = '/nowhere/x'", "cannot be read"),
        ("[[target]]\ntype = 'slack'\nurl_env = 'UNSET'", "UNSET holds no url"),
        ("[[target]]\ntype='slack'\nurl='http://SECRET'\nurl_env='A'", "one of url"),
        ("[[target]]\ntype = 'webhook'\nurl = 'http://x'\nkinds = ['x']", "threshold"),
        ("[[target]]\ntype = 'webhook'\nurl = 'http://x'\nseverities = ['x']", "critical"),
        ("[[target]]\ntype = 'email'\nto = []\nsmtp = 'smtp://h'", "address"),
        ("[[target]]\ntype='webhook'\nurl='http://x'\n[retry]\nattempts = 0", "attempts"),
        ("[[target]]\ntype='webhook'\nurl='http://x'\n[retry]\nbase_s = 9\ncap_s = 1", "base_s"),
        ("link = 'x'\n[[target]]\ntype='webhook'\nurl='http://x'", "link"),
        ("not toml", "notify.toml"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(written(tmp_path, text), {})
    assert says in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "x.toml", {})


@pytest.mark.parametrize(
    ("choice", "takes"),
    [
        (Choice(), True),
        (Choice.of(projects=["shop"]), True),
        (Choice.of(projects=["else"]), False),
        (Choice.of(kinds=["threshold"]), True),
        (Choice.of(kinds=["gap"]), False),
        (Choice.of(severities=["warning", "critical"]), True),
        (Choice.of(severities=["critical"]), False),
        (Choice.of(rules=["team"]), True),
        (Choice.of(rules=["team"], projects=["else"]), False),
    ],
)
def test_choices(choice: Choice, takes: bool) -> None:
    assert choice.takes(alert()) is takes

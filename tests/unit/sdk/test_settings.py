"""Argument > environment > callmeter.toml > default; bad values in one line; secrets stay
secret.
"""

from pathlib import Path

import pytest

from callmeter.errors import ConfigError
from callmeter.settings import Settings, resolve, settings_page


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_order_of_precedence(tmp_path: Path) -> None:
    assert resolve(environ={}).project == "default"
    (tmp_path / "callmeter.toml").write_text('project = "file"\nmax_batch_events = 7\n[cli]\nx = 1')
    assert resolve(environ={}).project == "file"
    environ = {"CALLMETER_PROJECT": "environ"}
    assert resolve(environ=environ).project == "environ"
    resolved = resolve({"project": "argument"}, environ)
    assert (resolved.project, resolved.max_batch_events) == ("argument", 7)


def test_an_argument_of_none_and_an_empty_variable_are_not_given() -> None:
    assert resolve({"project": None}, {"CALLMETER_PROJECT": ""}).project == "default"


def test_every_type_from_the_environment() -> None:
    resolved = resolve(
        environ={
            "CALLMETER_DURABLE": "Yes",
            "CALLMETER_RECORD_INPUTS": "0",
            "CALLMETER_FLUSH_DELAY_S": "1.5",
            "CALLMETER_MAX_BATCH_EVENTS": "10",
            "CALLMETER_REDACT_KEYS": "api_key, token",
            "CALLMETER_TAGS": "team=x, tier = gold",
            "CALLMETER_DROP": "newest",
        }
    )
    assert resolved.durable is True
    assert resolved.record_inputs is False
    assert resolved.flush_delay_s == 1.5
    assert resolved.max_batch_events == 10
    assert resolved.redact_keys == ("api_key", "token")
    assert resolved.tags == {"team": "x", "tier": "gold"}
    assert resolved.drop == "newest"


@pytest.mark.parametrize("on", ["1", "true", "YES", "True", "on"])
def test_switched_off_in_any_spelling(on: str) -> None:
    assert resolve(environ={"CALLMETER_DISABLED": on}).disabled


@pytest.mark.parametrize(
    ("given", "environ", "message"),
    [
        ({"max_batch_events": 0}, {}, "argument max_batch_events must be from 1 to 500: 0"),
        ({"max_batch_events": 501}, {}, "from 1 to 500"),
        ({"max_batch_events": 1.5}, {}, "not a whole number"),
        ({"sample_rate": 1.5}, {}, "from 0 to 1"),
        ({"flush_delay_s": float("nan")}, {}, "argument flush_delay_s must be"),
        ({"flush_delay_s": True}, {}, "not a number"),
        ({"durable": "yes"}, {}, "not true or false"),
        ({"drop": "random"}, {}, "one of oldest, newest: 'random'"),
        ({"project": ""}, {}, "is empty"),
        ({"project": "x" * 257}, {}, "longer than 256"),
        ({"redact_keys": "api_key"}, {}, "not a list of texts"),
        ({"tags": ["a"]}, {}, "not a map"),
        ({"colour": "red"}, {}, "unknown setting 'colour'"),
        ({}, {"CALLMETER_MAX_BATCH_EVENTS": "many"}, "CALLMETER_MAX_BATCH_EVENTS is not a whole"),
        ({}, {"CALLMETER_DURABLE": "maybe"}, "CALLMETER_DURABLE is not true or false: 'maybe'"),
        ({}, {"CALLMETER_TAGS": "team"}, "key=value"),
        ({}, {"CALLMETER_CONFIG": "/nonexistent/callmeter.toml"}, "no such file"),
        ({}, {"CALLMETER_API_KEY_FILE": "/nonexistent/key"}, "CALLMETER_API_KEY_FILE cannot be"),
        ({"spool_max_bytes": 5}, {}, "spool_max_bytes must be at least 1048576: 5"),
    ],
)
def test_bad_values_are_one_line(given: dict, environ: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")) as caught:
        resolve(given, environ)
    assert "\n" not in str(caught.value)


def test_a_broken_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "callmeter.toml").write_text("project = ")
    with pytest.raises(ConfigError, match="not TOML"):
        resolve(environ={})
    (tmp_path / "callmeter.toml").write_text("max_batch_events = 'x'")
    with pytest.raises(ConfigError, match=r"max_batch_events in callmeter\.toml is not a whole"):
        resolve(environ={})


def test_a_secret_comes_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("s3cret\n")
    resolved = resolve(environ={"CALLMETER_API_KEY_FILE": str(key)})
    assert resolved.api_key == "s3cret"
    assert "s3cret" not in repr(resolved)
    with pytest.raises(ConfigError) as caught:
        resolve({"api_key": b"s3cret"}, {})
    assert "s3cret" not in str(caught.value)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().project = "x"  # type: ignore[misc]


def test_the_settings_page_is_current() -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"
    assert page.read_text(encoding="utf-8") == settings_page(), (
        "write docs/reference/settings.md again from callmeter.settings.settings_page()"
    )

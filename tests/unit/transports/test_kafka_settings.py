"""One URL, or the environment, for every Kafka client; nothing secret in any text."""

from __future__ import annotations

from pathlib import Path

import pytest

from callmeter.errors import ConfigError
from callmeter.log.kafka_settings import KafkaSettings


def settings(url: str, **environ: str) -> KafkaSettings:
    return KafkaSettings.from_url(url, {f"CALLMETER_KAFKA_{k}": v for k, v in environ.items()})


def test_plain() -> None:
    got = settings("kafka://one:9092,two")
    assert got.servers == ("one:9092", "two:9092")
    assert got.prefix == "callmeter"
    assert got.client_kwargs() == {
        "bootstrap_servers": "one:9092,two:9092",
        "security_protocol": "PLAINTEXT",
    }


def test_ipv6_and_prefix() -> None:
    got = settings("kafka://[::1]:19092/?prefix=team.a")
    assert got.servers == ("[::1]:19092",)
    assert got.prefix == "team.a"
    assert settings("kafka://h", PREFIX="env").prefix == "env"
    assert settings("kafka://h?prefix=url", PREFIX="env").prefix == "url"


def test_sasl_from_the_url_is_percent_decoded() -> None:
    got = settings("kafka+ssl://us%40er:p%40s%2Fs%3A%23@h:9093?mechanism=scram-sha-512")
    kwargs = got.client_kwargs()
    assert kwargs.pop("ssl_context").check_hostname is True
    assert kwargs == {
        "bootstrap_servers": "h:9093",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "us@er",
        "sasl_plain_password": "p@s/s:#",
    }


def test_sasl_from_the_environment_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-file\n")
    got = settings(
        "kafka://h",
        USERNAME="u",
        PASSWORD_FILE=str(tmp_path / "secret"),
        SASL_MECHANISM="SCRAM_SHA_256",
    )
    assert (got.username, got.password, got.mechanism) == ("u", "from-file", "SCRAM-SHA-256")
    assert got.security_protocol == "SASL_PLAINTEXT"


def test_a_user_without_mechanism_is_plain_and_may_have_its_password_elsewhere() -> None:
    got = settings("kafka://u@h", PASSWORD="p")
    assert (got.mechanism, got.username, got.password) == ("PLAIN", "u", "p")


@pytest.mark.asyncio
async def test_oauth_token_file_is_read_again(tmp_path: Path) -> None:
    pytest.importorskip("aiokafka")
    file = tmp_path / "token"
    file.write_text("first\n")
    got = settings("kafka+ssl://h", TOKEN_FILE=str(file))
    assert got.mechanism == "OAUTHBEARER"
    provider = got.client_kwargs()["sasl_oauth_token_provider"]
    assert await provider.token() == "first"
    file.write_text("second\n")
    assert await provider.token() == "second"


def test_no_secret_in_any_text() -> None:
    got = settings("kafka+ssl://user:hunter2@h", CA="ca-pem", CERT="c", KEY="key-pem", TOKEN="tok")
    for text in (repr(got), str(got), got.display):
        for secret in ("hunter2", "key-pem", "tok'", "tok)"):
            assert secret not in text
    assert got.display == "kafka+ssl://h:9092"


@pytest.mark.parametrize(
    ("url", "environ", "says"),
    [
        ("redis://h", {}, "kafka://host:port"),
        ("kafka:h", {}, "kafka://host:port"),
        ("kafka://", {}, "host:port"),
        ("kafka://h:port", {}, "host:port"),
        ("kafka://h:70000", {}, "host:port"),
        ("kafka://a,,b", {}, "host:port"),
        ("kafka://u:pa:ss/hunter2@h", {}, "%2F"),
        ("kafka://u:hunter2#x@h", {}, "%23"),
        ("kafka://h/callmeter", {}, "?prefix="),
        ("kafka://h?topic=x", {}, "'topic'"),
        ("kafka://h?prefix=a%20b", {}, "prefix"),
        ("kafka://u:hunter2@h?mechanism=GSSAPI", {}, "OAUTHBEARER"),
        ("kafka://u@h", {}, "CALLMETER_KAFKA_PASSWORD"),
        ("kafka://h?mechanism=OAUTHBEARER", {}, "CALLMETER_KAFKA_TOKEN"),
        ("kafka://h", {"CA": "x"}, "kafka+ssl://"),
        ("kafka+ssl://h", {"KEY": "x"}, "certificate"),
        ("kafka+ssl://h", {"CA_FILE": "/nowhere/ca.pem"}, "/nowhere/ca.pem"),
    ],
)
def test_bad_settings_say_so_in_one_line(url: str, environ: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(url, **environ)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_unusable_certificates_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="certificates"):
        settings("kafka+ssl://h", CA="not a certificate").client_kwargs()
    with pytest.raises(ConfigError, match="certificates"):
        settings("kafka+ssl://h", CERT="not a certificate", KEY="neither").client_kwargs()

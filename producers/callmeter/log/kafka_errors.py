"""Kafka's errors in callmeter's words: one line each, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

from callmeter.errors import CallmeterError, ConfigError, UnreachableError
from callmeter.log.kafka_settings import KafkaSettings

_REFUSALS = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)


@contextmanager
def kafka_errors(settings: KafkaSettings) -> Iterator[None]:
    """Turns what a Kafka client raises inside into ``UnreachableError`` or ``ConfigError``."""
    try:
        yield
    except (KafkaError, TimeoutError, OSError) as exc:
        raise translated(exc, settings) from exc


def translated(exc: BaseException, settings: KafkaSettings) -> CallmeterError:
    """The callmeter error for one of a Kafka client's."""
    text = str(exc).strip() or type(exc).__name__
    if isinstance(exc, _REFUSALS):
        return ConfigError(f"{settings.display} refuses: {text}; check user, password and ACLs")
    if isinstance(exc, TimeoutError):
        return UnreachableError(f"{settings.display} did not answer in time")
    return UnreachableError(f"{settings.display} is not reachable: {text}")

"""OAUTHBEARER for aiokafka: a token provider over a function that reads the token.

Apart from the settings because this needs aiokafka's base class, and the settings need nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from aiokafka.abc import AbstractTokenProvider


class _Reader(AbstractTokenProvider):  # type: ignore[misc, unused-ignore]  # aiokafka is untyped
    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read

    async def token(self) -> str:
        """Read at every connection, so a rotated token file is seen at once. A small local file: no
        executor, which a program that is about to exit no longer has.
        """
        return self._read()


def token_provider(read: Callable[[], str]) -> AbstractTokenProvider:
    """What aiokafka's ``sasl_oauth_token_provider`` takes."""
    return _Reader(read)

"""OAUTHBEARER for aiokafka: a token provider over a function that reads the token.

Apart from the settings because this needs aiokafka's base class, and the settings need nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiokafka.abc import AbstractTokenProvider


class _Reader(AbstractTokenProvider):  # type: ignore[misc, unused-ignore]  # aiokafka is untyped
    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read

    async def token(self) -> str:
        """Read at every connection, off the loop: a rotated token file is seen at once."""
        return await asyncio.get_running_loop().run_in_executor(None, self._read)


def token_provider(read: Callable[[], str]) -> AbstractTokenProvider:
    """What aiokafka's ``sasl_oauth_token_provider`` takes."""
    return _Reader(read)

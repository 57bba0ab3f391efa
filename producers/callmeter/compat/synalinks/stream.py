"""A model's streamed answer, timed while it is read; to its reader the engine's own object."""

from __future__ import annotations

import types
from typing import Any, Protocol, Self

from callmeter.compat.synalinks.reading import Reading
from callmeter.sdk.usage.fields import get
from callmeter.sdk.usage.shapes import usage_of

_OWN = ("_stream", "_run", "_over", "_iterator")


class Listener(Protocol):
    """The call whose answer is read: it is told of each token and of the end."""

    reading: Reading | None

    def token(self) -> None: ...

    def stream_ended(self, exc: BaseException | None = None) -> None: ...


class MeteredStream:
    """Passes tokens on. The call lasts until the last one; an abandoned stream is ``cancelled``.

    Methods of the engine's stream that read it to its end (``aconsume``) run on this object, so
    what they read is seen too. A last chunk with usage makes the usage known.
    """

    def __init__(self, stream: Any, run: Listener) -> None:
        self._stream = stream
        self._run = run
        self._over = False
        self._iterator: Any = None

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._stream)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._stream, name)
        if isinstance(value, types.MethodType) and value.__self__ is self._stream:
            return types.MethodType(value.__func__, self)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._stream, name, value)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._iterator is None:
            self._iterator = self._stream.__aiter__()
        try:
            chunk = await self._iterator.__anext__()
        except StopAsyncIteration:
            self._end(None)
            raise
        except BaseException as exc:
            self._end(exc)
            raise
        self._seen(chunk)
        return chunk

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self._stream)
        try:
            chunk = next(self._iterator)
        except StopIteration:
            self._end(None)
            raise
        except BaseException as exc:
            self._end(exc)
            raise
        self._seen(chunk)
        return chunk

    async def aclose(self) -> None:
        """The reader gives up."""
        self._end(GeneratorExit())
        close = getattr(self._stream, "aclose", None)
        if close is not None:
            await close()

    def close(self) -> None:
        """The reader gives up."""
        self._end(GeneratorExit())
        close = getattr(self._stream, "close", None)
        if close is not None:
            close()

    def __del__(self) -> None:
        self._end(GeneratorExit())

    def _seen(self, chunk: Any) -> None:
        usage = usage_of(get(chunk, "usage"))
        if usage is not None:
            self._run.reading = Reading(usage=usage)
        self._run.token()

    def _end(self, exc: BaseException | None) -> None:
        if not self._over:
            self._over = True
            self._run.stream_ended(exc)

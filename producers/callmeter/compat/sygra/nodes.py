"""``track_node``: executions of a graph's nodes, and the requests made within them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from callmeter.compat.sygra import state
from callmeter.compat.sygra.collector import get_metadata_collector
from callmeter.compat.sygra.recording import LiveNode
from callmeter.compat.sygra.tokens import says_error

F = TypeVar("F", bound=Callable[..., Any])

#: SyGra's node types; any other text is taken as well.
NODE_TYPES = ("llm", "multi_llm", "agent", "lambda", "weighted_sampler")
#: Nodes whose answer comes from a model and may be an error in the shape of a text.
_ANSWERING = frozenset({"llm", "multi_llm", "agent"})


class track_node:  # noqa: N801  # a decorator, as its users see it
    """A node, as a decorator of its function (sync or async) or as a context manager.

    Counts executions, their time and failures; a node has failed if it raised or, for ``llm``,
    ``multi_llm`` and ``agent``, if its answer holds SyGra's error marker. Tokens and cost are those
    of requests directly within; a node inside this one has its own.

    >>> @track_node("summarizer", "llm", model="gpt-4o-mini")
    ... async def summarize(state): ...
    >>> with track_node("pick", "weighted_sampler"):
    ...     choose()
    """

    def __init__(self, name: str, node_type: str = "llm", *, model: str | None = None) -> None:
        self.name = name
        self.node_type = node_type
        self.model = model
        self._live: list[LiveNode | None] = []

    def child(self, label: str, model: str | None = None) -> track_node:
        """The node of one model of a ``multi_llm`` node: ``<name>_<label>``, of type ``llm``."""
        return track_node(f"{self.name}_{label}", "llm", model=model or label)

    def __call__(self, func: F) -> F:
        if inspect.iscoroutinefunction(func):

            @functools.wraps(func)
            async def executed_async(*args: Any, **kwargs: Any) -> Any:
                with track_node(self.name, self.node_type, model=self.model) as node:
                    result = await func(*args, **kwargs)
                    node.answer(result)
                    return result

            return executed_async  # type: ignore[return-value]  # wraps F

        @functools.wraps(func)
        def executed(*args: Any, **kwargs: Any) -> Any:
            with track_node(self.name, self.node_type, model=self.model) as node:
                result = func(*args, **kwargs)
                node.answer(result)
                return result

        return executed  # type: ignore[return-value]  # wraps F

    def answer(self, result: Any) -> None:
        """What the node's model answered: one that holds the error marker is a failure."""
        live = self._live[-1] if self._live else None
        if live is not None and self.node_type in _ANSWERING and says_error(result):
            live.failed = True

    def __enter__(self) -> Self:
        live = None
        if get_metadata_collector().is_enabled():
            live = LiveNode(state.current(), self.name, self.node_type, self.model)
            live.begin()
        self._live.append(live)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        live = self._live.pop()
        if live is not None:
            live.end(exc)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.__exit__(kind, exc, tb)

"""One call: the object a program holds while it runs; ``Ended`` is what is queued of it then.

Everything here runs on the caller's thread. What every call does, its begin, its end and the like,
is in ``hot``; ``encode`` turns what was noted down into an event later.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Self

from callmeter.money import to_pico
from callmeter.sdk.callids import digits_of, span_of, uuid_of
from callmeter.sdk.containment import CONTAINMENT
from callmeter.sdk.context import FRAME, Frame, restore
from callmeter.sdk.errors_told import MAX_ERROR_CHARS, describe_error
from callmeter.sdk.freezing import freeze
from callmeter.sdk.hot import HotCall
from callmeter.sdk.intake import Intake


class Call(HotCall):
    """A model call, tool call or program run. Use it as a (sync or async) context manager.

    Inside the block it is the parent of every call that starts there, in this task or thread.

    >>> with callmeter.generation("answer", model="gpt-4o-mini", provider="openai") as call:
    ...     reply = client.chat.completions.create(...)
    ...     call.record(reply)
    """

    __slots__ = ()

    def start(self) -> Self:
        """Begin without becoming the parent of what follows: for calls that end elsewhere."""
        self.__enter__()
        if self._token is not None:
            token, self._token = self._token, None
            restore(token)
        return self

    def finish(self, exc: BaseException | None = None) -> None:
        """End a call begun by ``start``; with an exception it has failed."""
        self.__exit__(None if exc is None else type(exc), exc, None)

    def attribute(self, name: str) -> Any:
        """What was said of an attribute or field so far; the last word wins."""
        later = self.later
        return later[name] if later and name in later else self.fields.get(name)

    def first_token(self) -> None:
        """The first token has arrived; later ones change nothing."""
        extra = self._extra()
        if "first_ns" not in extra:
            extra["first_ns"] = self.intake.mono()

    def record(self, reply: Any, *, output: bool = True) -> None:
        """Read usage, model, finish reason and, if recorded, the output out of a provider's reply.

        Objects and dicts of OpenAI, Azure, Anthropic, Bedrock, Gemini, Ollama, TGI, LangChain and
        LiteLLM are understood. A reply without usage leaves the usage unknown.
        """
        try:
            from callmeter.sdk.usage import read_reply

            found = read_reply(reply)
            if found.usage is not None:
                self.units = found.usage
            for name, value in found.fields.items():
                if self.attribute(name) is None:
                    self.set(**{name: value})
            if found.cost_pico is not None:
                self._extra().setdefault("cost", (found.cost_pico, "litellm"))
            if output and self.intake.record_outputs:
                self._extra()["outputs"] = freeze(reply if found.output is None else found.output)
        except Exception as exc:  # noqa: BLE001  # a reply may be any object
            CONTAINMENT.caught("Call.record", exc)

    def frame(self) -> Frame:
        """What a call that starts within this one sees around it."""
        return self

    def inputs(self, value: Any, *, keep: bool | None = None) -> None:
        """What the call was given; kept if inputs are recorded, or as ``keep`` says."""
        if self.intake.record_inputs if keep is None else keep:
            self._extra()["inputs"] = freeze(value)

    def output(self, value: Any, *, keep: bool | None = None) -> None:
        """What the call answered; kept if outputs are recorded, or as ``keep`` says."""
        if self.intake.record_outputs if keep is None else keep:
            self._extra()["outputs"] = freeze(value)

    def cost(self, usd: Decimal | str | int, source: str = "provider") -> None:
        """What the provider says this call costs, in USD; it is kept as reported.

        A float is refused: money is ``Decimal``, ``str`` or ``int``.
        """
        try:
            self._extra()["cost"] = (to_pico(usd), str(source))
        except (TypeError, ValueError) as exc:
            CONTAINMENT.caught("Call.cost", exc)

    def error(self, exc: BaseException) -> None:
        """The call has failed. Type, text and HTTP status are kept, the exception itself is not."""
        try:
            self._extra()["error"] = describe_error(exc)
        except Exception as trouble:  # noqa: BLE001  # a user's __str__ may do anything
            CONTAINMENT.caught("Call.error", trouble)

    def failed(self, error_type: str, message: str = "") -> None:
        """The call has failed without an exception: a reply that says so."""
        error = ("error", error_type[:256], message[:MAX_ERROR_CHARS], None)
        self._extra().setdefault("error", error)

    def wraps_billable(self) -> None:
        """A call inside this one is the billable one: this one stays, without usage and cost."""
        self._extra()["wraps"] = True

    def move_under(self, parent: Call) -> None:
        """Become a child of ``parent``: right after the start, before anything was said of it."""
        self.parent = parent.span
        self.root = parent if parent.root is None else parent.root

    @property
    def id(self) -> str:
        """The call's id, a UUIDv7; known once the call has begun."""
        return uuid_of(digits_of(self.started_ns, self.span))

    @property
    def trace_id(self) -> str:
        """32 hex digits: the id of the call that began the trace."""
        root = self.root
        return digits_of(self.started_ns, self.span) if root is None else root.trace_id

    @property
    def span_id(self) -> str:
        """16 hex digits: the low 8 bytes of the id."""
        return span_of(self.span)

    @property
    def started_ns(self) -> int:
        """Nanoseconds since the epoch; durations come from the monotonic clock alone."""
        wall_ns, mono_ns = self.anchor
        return wall_ns + self.start_ns - mono_ns

    def _extra(self) -> dict[str, Any]:
        extra = self.extra
        if extra is None:
            extra = self.extra = {}
        return extra

    def _not_open(self) -> None:
        """Ended twice, ended in a forked child, sampled out, or after ``close``."""
        intake = self.intake
        if intake.closed:
            intake.refuse()
        elif not self.sampled:
            with intake.lock:
                intake.sampled_out += 1


class NoCall(Call):
    """What ``generation`` gives while nothing is metered: every method does nothing."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    def usage(self, input: int = 0, output: int = 0, **units: int) -> None:  # noqa: A002
        """Nothing."""

    def set(self, /, **attributes: Any) -> None:
        """Nothing."""

    def first_token(self) -> None:
        """Nothing."""

    def record(self, reply: Any, *, output: bool = True) -> None:
        """Nothing."""

    def failed(self, error_type: str, message: str = "") -> None:
        """Nothing."""

    def wraps_billable(self) -> None:
        """Nothing."""

    def move_under(self, parent: Call) -> None:
        """Nothing."""

    def frame(self) -> Frame:
        return FRAME.get()

    def inputs(self, value: Any, *, keep: bool | None = None) -> None:
        """Nothing."""

    def output(self, value: Any, *, keep: bool | None = None) -> None:
        """Nothing."""

    def cost(self, usd: Decimal | str | int, source: str = "provider") -> None:
        """Nothing."""

    def error(self, exc: BaseException) -> None:
        """Nothing."""

    def start(self) -> Self:
        return self

    def finish(self, exc: BaseException | None = None) -> None:
        """Nothing."""

    @property
    def id(self) -> str:
        return ""

    @property
    def trace_id(self) -> str:
        return ""

    @property
    def span_id(self) -> str:
        return ""


NO_CALL = NoCall()


def new_call(
    intake: Intake,
    name: str | None,
    fields: dict[str, Any],
    extra: dict[str, Any] | None = None,
) -> Call:
    """A call that has not begun. ``fields`` becomes the call's own and holds no mutable value."""
    call = Call()
    call.intake = intake
    call.name = name
    call.fields = fields
    call.extra = extra
    call.units = call.later = None
    return call


def frame_of(parent: Call | str | None) -> Frame | None:
    """The frame a given parent makes: a call, or a W3C ``traceparent``; None if it is neither."""
    if parent is None or isinstance(parent, NoCall):
        return None
    if isinstance(parent, Call):
        return parent
    from callmeter.sdk.traceparent import frame_from_traceparent

    return frame_from_traceparent(parent, FRAME.get().labels)


def merged_tags(tags: Mapping[str, Any] | None) -> dict[str, str] | None:
    """Tags as text, or None."""
    return {str(k): v if type(v) is str else str(v) for k, v in tags.items()} if tags else None

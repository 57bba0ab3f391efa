"""One question to a model through a guard: what it may cost, and what it did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from callmeter.sdk import api
from callmeter.sdk.budget.limit import money_pico
from callmeter.sdk.budget.price import Worth, estimate_of, price
from callmeter.sdk.containment import CONTAINMENT
from callmeter.sdk.nesting import enter_billable

if TYPE_CHECKING:
    from callmeter.sdk.budget.guard import BudgetGuard

#: Where a call or a model says how much it may answer.
_OUTPUT_LIMITS = ("max_tokens", "max_output_tokens", "max_completion_tokens", "max_new_tokens")
#: English text has about so many characters a token; only for estimates.
_CHARS_PER_TOKEN = 4


class Asked:
    """Usage and cost come from the calls metered inside. If there are none (a bare model), they are
    read from the reply and the model, and metered here: one call, one record, one spend.
    """

    def __init__(
        self,
        guard: BudgetGuard,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        function: bool = False,
    ) -> None:
        self._guard = guard
        self._llm = None if function else guard.llm
        about = guard._about
        self.model = str(kwargs.get("model") or about["model"] or _said(self._llm, "model"))
        self.provider = str(about["provider"] or _said(self._llm, "provider"))
        self._started_us = guard._clock.now_us()
        estimate = self._estimate(args, kwargs)
        self.admission = guard.admit(user=str(about["user"]))
        self.admission._estimate = estimate
        self._last: Any = None
        self._counted = _counted(self._llm)
        intake = None if (client := api.default_client()) is None else client.intake
        self._start_ns = 0 if intake is None else intake.mono()

    def _estimate(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        given = self._guard.estimate
        if callable(given):
            given = given(*args, **kwargs)
        if given is not None:
            return money_pico(given)
        most = next((kwargs[k] for k in _OUTPUT_LIMITS if isinstance(kwargs.get(k), int)), None)
        if most is None:
            config = getattr(self._llm, "config", None)
            said = (getattr(config, name, None) for name in _OUTPUT_LIMITS)
            most = next((n for n in said if isinstance(n, int)), None)
        if most is None or not self.model or self._llm is None:
            return 0
        tokens = self._input_tokens(args[0] if args else kwargs.get("prompt"))
        return estimate_of(self.provider, self.model, self._started_us, tokens, most)

    def _input_tokens(self, prompt: Any) -> int:
        count = getattr(self._llm, "count_tokens", None)
        if callable(count):
            found = count(prompt)
            if isinstance(found, int):
                return found
        return -(-len(prompt if isinstance(prompt, str) else str(prompt)) // _CHARS_PER_TOKEN)

    def chunk(self, chunk: Any) -> None:
        """A part of the answer; the last one that says its usage speaks for all."""
        if not isinstance(chunk, str):
            self._last = chunk

    def ended(self) -> None:
        """A stream is over."""
        self.answered(self._last)

    def answered(self, reply: Any) -> None:
        """The model has answered: if nobody has metered that, it is done here."""
        if self._llm is None or self.admission.calls:
            return
        try:
            self._meter(reply)
        except Exception as exc:  # noqa: BLE001  # a reply may be any object
            CONTAINMENT.caught("a budget guard", exc)

    def _meter(self, reply: Any) -> None:
        from callmeter.sdk.usage import read_reply

        units = cost_pico = None
        answered_by = ""
        if reply is not None and not isinstance(reply, str):
            found = read_reply(reply)
            units, cost_pico = found.usage, found.cost_pico
            answered_by = found.fields.get("response_model", "")
        if units is None:
            units = self._counted_since()
        user = str(self._guard._about["user"])
        call = self._call(user)
        if call is not None:
            call.start()
            call.start_ns = self._start_ns
            enter_billable(call)  # a ``generation`` of the user's own around this one only wraps it
            if reply is not None and not isinstance(reply, str):
                call.record(reply)
            if units is not None:
                call.usage(**units)
            call.finish()  # counted as any metered call inside
            return
        pico = cost_pico
        if pico is None:
            pico = price(
                self.provider, self.model, self._started_us, units, answered_by=answered_by
            )
        tokens = 0 if units is None else units.get("input", 0) + units.get("output", 0)
        self.admission.saw(Worth(pico, tokens, self._started_us, user))

    def _call(self, user: str) -> Any:
        client = self._guard._client or api.default_client()
        if client is None or client.intake is None:
            return None
        session = str(self._guard._about["session"])
        more: dict[str, Any] = {k: v for k, v in (("user", user), ("session", session)) if v}
        return client.generation(
            "generate", model=self.model or "unknown", provider=self.provider or None, **more
        )

    def _counted_since(self) -> dict[str, int] | None:
        """What the model's own counter has grown by; exact while it is asked once at a time."""
        now = _counted(self._llm)
        if now is None:
            return None
        before = self._counted or {}
        grown = {unit: now.get(unit, 0) - before.get(unit, 0) for unit in ("input", "output")}
        return grown if any(grown.values()) else None


def _said(llm: Any, name: str) -> str:
    """The model's name or provider, as the object or its configuration says."""
    for place in (llm, getattr(llm, "config", None)):
        value = getattr(place, name, None)
        if isinstance(value, str) and value:
            return value
    return ""


def _counted(llm: Any) -> dict[str, int] | None:
    """A model's own running count, ``tokens_used`` = {"input", "output"}; None without one."""
    found = getattr(llm, "tokens_used", None)
    if not isinstance(found, dict):
        return None
    return {unit: n for unit, n in found.items() if isinstance(n, int)}

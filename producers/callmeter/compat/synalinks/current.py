"""The module call that is under way in this task, and who tells of it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from callmeter.compat.synalinks.modules import Role, role_of
from callmeter.compat.synalinks.payload import is_symbolic
from callmeter.compat.synalinks.reading import Reading, forget_cost, read_model
from callmeter.errors import ConfigError
from callmeter.sdk import api
from callmeter.sdk.call import NO_CALL, Call
from callmeter.transports.url import HttpEndpoint, http_endpoint

NO_ANSWER = "the model gave no answer after all retries"


class ModuleCall:
    """What is known of one call of a module, while it runs and when it has ended.

    ``running.Run`` conducts it; the engine's hooks and the recorder read it.
    """

    def __init__(self, module: Any, given: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        self.module = module
        #: What the module was given: data models, at any depth.
        self.given = given
        self.role = role_of(module)
        self.symbolic = is_symbolic(given)
        self.parent = RUN.get()
        self.call: Call = NO_CALL
        self.call_id = ""
        #: What the engine let slip while the call ran.
        self.error: BaseException | None = None
        self.cache_hit = False
        self.fell_back = False
        self.streamed = False
        self.reading: Reading | None = None
        #: Cost of the model calls in here, in pico-USD; None while none was reported.
        self.inner_pico: int | None = None
        #: When it began (seconds since the epoch) and how long it took.
        self.began_s = 0.0
        self.elapsed_s = 0.0

    @property
    def model_call(self) -> bool:
        """Whether this is a billable call: a model that was really asked."""
        return self.role is not Role.MODULE and not self.symbolic

    @property
    def trouble(self) -> BaseException | None:
        """What made a model fail, whatever its caller got."""
        return self.error or (RuntimeError(NO_ANSWER) if self.model_call else None)

    def took(self, reading: Reading) -> None:
        """A provider's reply has come: what it says, before another call's overwrites it."""
        self.reading = reading
        forget_cost(self.module)

    def read(self) -> None:
        """Read an engine's figures that told of no reply while it ran."""
        if self.reading is None and not self.cache_hit and not self.streamed:
            self.took(read_model(self.module))


RUN: ContextVar[ModuleCall | None] = ContextVar("callmeter_synalinks_run", default=None)


def told_by_sdk(base: str) -> bool:
    """Whether the call under way reaches the collector at ``base`` as a record of the SDK's own.

    The Monitor hook then stays silent, or the collector would count every module twice.
    """
    run, client = RUN.get(), api.default_client()
    if run is None or run.call is NO_CALL or client is None or client.url is None:
        return False
    ours, its = _place(client.url), _place(base)
    return ours is not None and ours == its


def _place(url: str) -> tuple[str, int, str] | None:
    if not url.lower().startswith(("http://", "https://")):
        return None
    try:
        endpoint: HttpEndpoint = http_endpoint(url)
    except ConfigError:
        return None
    host = "localhost" if endpoint.loopback else endpoint.host.lower()
    return host, endpoint.port, endpoint.base

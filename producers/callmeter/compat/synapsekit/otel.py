"""``OTelExporter``: spans to an OpenTelemetry backend."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from callmeter.compat.synapsekit.spans import observe

if TYPE_CHECKING:
    from callmeter.integrations.opentelemetry import SpanBridge


class OTelExporter:
    """Sends every span that ends after ``install()`` to an OTLP endpoint.

    ``endpoint`` is gRPC (port 4317 by custom) or HTTP (port 4318, or a path such as
    ``/v1/traces``). Plaintext only with ``insecure=True``. ``MissingExtraError`` without
    opentelemetry, ``ConfigError`` for an endpoint that is none.

    >>> OTelExporter(endpoint="http://localhost:4317", insecure=True).install()
    """

    def __init__(
        self,
        endpoint: str,
        service_name: str = "synapsekit",
        headers: dict[str, str] | None = None,
        insecure: bool = False,
    ) -> None:
        from callmeter.integrations.opentelemetry import otlp_endpoint

        self.endpoint, _ = otlp_endpoint(endpoint, insecure=insecure)
        self.service_name = service_name
        self._given = endpoint
        self._headers = dict(headers or {})
        self._insecure = insecure
        self._bridge: SpanBridge | None = None
        self._remove: Callable[[], None] | None = None

    def install(self) -> Self:
        """Send spans from now on; nothing happens if it does already."""
        if self._bridge is None:
            from callmeter.integrations.opentelemetry import SpanBridge

            self._bridge = SpanBridge(
                self._given,
                service_name=self.service_name,
                headers=self._headers,
                insecure=self._insecure,
            )
            self._remove = observe(self._bridge.export)
            atexit.register(self.uninstall)
        return self

    def flush(self) -> bool:
        """Send what has ended; whether the backend took everything since the last flush."""
        return self._bridge is None or self._bridge.flush()

    def uninstall(self) -> None:
        """Send what has ended and stop; the end of the process does it too."""
        atexit.unregister(self.uninstall)
        bridge, self._bridge = self._bridge, None
        if self._remove is not None:
            self._remove()
            self._remove = None
        if bridge is not None:
            bridge.close()

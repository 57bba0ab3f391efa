"""The facade's errors.

CallmeterError
└── MetricsCollectorError      also a RuntimeError, as in the original
    └── MetricsRequestError    a request failed; ``status_code`` is None without an answer
"""

from __future__ import annotations

from callmeter.errors import CallmeterError


class MetricsCollectorError(CallmeterError, RuntimeError):
    """Required state is missing, or something queued was not delivered."""

    exit_code = 1


class MetricsRequestError(MetricsCollectorError):
    """A request to the collector failed for good, or after its retries."""

    def __init__(self, message: str, *, status_code: int | None, retryable: bool) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.retryable = retryable

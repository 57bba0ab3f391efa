"""What a caller of ``flush`` leaves with the shipper, and waits for."""

from __future__ import annotations

from callmeter.sdk.intake import Wake


class FlushRequest:
    """Someone waits until everything accepted so far is settled; ``last``: the client closes."""

    __slots__ = ("done", "last", "target")

    def __init__(self, *, last: bool) -> None:
        self.done = Wake()
        self.last = last
        #: Envelopes below this seq must be settled; None until all that was queued is sealed.
        self.target: int | None = None

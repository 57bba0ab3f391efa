"""The SDK: calls, metrics and notes on the caller's thread; everything else behind it.

api ── client ── call, track, experiment        the caller's thread: ids, clocks, one append
            └─── intake ─────────────────────   the queue between them
                     └── shipper (one thread) ── encode ── envelopes ── outbox ── transport
"""

"""A worker for short runs: ``python -m support.chaos_worker URL SESSION_SECONDS [GAP_SECONDS]``.

With GAP_SECONDS a meter that tells of gaps so soon, else a watch. Everything else is as in
``callmeter worker``, so that a short run need not wait a minute for an alert, nor six seconds for
each worker that dies.
"""

from __future__ import annotations

import logging
import sys


def main(url: str, session_s: str, gap_s: str = "") -> None:
    from callmeter_processors.runtime.worker import run_worker

    logging.basicConfig(level=logging.WARNING)
    session_timeout_s = float(session_s)
    if not gap_s:
        from callmeter_processors.watch.step import watch_factory

        run_worker(
            url,
            lambda _settings: watch_factory(),
            name="watch",
            source="spend",
            state="watch-state",
            session_timeout_s=session_timeout_s,
        )
        return
    from callmeter.pricing import installed_book
    from callmeter.pricing.pricer import Pricer
    from callmeter_processors.limits import SECOND_US, MeterLimits
    from callmeter_processors.meter import meter_factory

    limits = MeterLimits(gap_alert_us=int(gap_s) * SECOND_US)
    factory = meter_factory(Pricer(installed_book()), limits)
    run_worker(url, lambda _settings: factory, session_timeout_s=session_timeout_s)


if __name__ == "__main__":
    main(*sys.argv[1:])

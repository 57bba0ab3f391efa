"""A meter worker that tells of gaps sooner: ``python -m support.chaos_worker URL GAP_SECONDS``.

Everything else is as in ``callmeter worker``, so that a short run need not wait a minute.
"""

from __future__ import annotations

import logging
import sys


def main(url: str, gap_s: str) -> None:
    from callmeter.pricing import installed_book
    from callmeter.pricing.pricer import Pricer
    from callmeter_processors.limits import SECOND_US, MeterLimits
    from callmeter_processors.meter import meter_factory
    from callmeter_processors.runtime.worker import run_worker

    logging.basicConfig(level=logging.WARNING)
    limits = MeterLimits(gap_alert_us=int(gap_s) * SECOND_US)
    factory = meter_factory(Pricer(installed_book()), limits)
    run_worker(url, lambda _settings: factory)


if __name__ == "__main__":
    main(*sys.argv[1:])

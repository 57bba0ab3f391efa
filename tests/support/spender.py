"""A producer process on a shared budget: spends until it is stopped, then says what it spent.

    python tests/support/spender.py URL PROJECT BUDGET USD THREADS PAUSE_S

It prints ``ready`` once it knows the budget, waits for a line, and ends with one line of JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import callmeter

#: The end, if nobody stops it.
MOST_S = 60.0


def main(url: str, project: str, budget: str, *more: str) -> None:
    usd, threads, pause_s = more
    callmeter.init(url, project=project)
    guard = callmeter.BudgetGuard(budget=budget)
    assert guard.wait_ready(30)
    shared = guard.shared
    assert shared is not None
    while not shared.fresh:
        time.sleep(0.02)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    begun_s = time.time()
    counts = [0] * int(threads)
    stops: list[dict[str, object]] = []
    pause = float(pause_s)

    def spend(worker: int) -> None:
        while time.time() < begun_s + MOST_S:
            try:
                with guard, callmeter.generation(model="m", provider="p") as call:
                    call.usage(input=1)
                    call.cost(usd)
                    time.sleep(pause)
                counts[worker] += 1
            except callmeter.BudgetExceeded as exc:
                at = time.time()
                stops.append({"spent": str(exc.spent), "type": exc.limit_type, "at": at})
                return

    workers = [threading.Thread(target=spend, args=(n,)) for n in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    delivered = callmeter.flush(30).ok
    ended = {"calls": sum(counts), "begun": begun_s, "stops": stops, "delivered": delivered}
    sys.stdout.write(json.dumps(ended) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])

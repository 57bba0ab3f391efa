"""A worker process over the toy step: ``python -m support.toy_worker URL [name=value…]``."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]


def start_worker(url: str, log_file: Path, **options: object) -> subprocess.Popen[bytes]:
    """Starts one; its log lines are appended to ``log_file``. The caller ends it."""
    environ = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-m", "support.toy_worker", url]
    command += [f"{name}={value}" for name, value in options.items()]
    with log_file.open("ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, env=environ)


def end_worker(process: subprocess.Popen[bytes], timeout_s: float = 30.0) -> int:
    """SIGTERM, and SIGKILL if that does not end it; its exit code."""
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return -signal.SIGKILL


def main(url: str, *options: str) -> None:
    from callmeter_processors.runtime.stats import RuntimeStats
    from callmeter_processors.runtime.worker import run_worker
    from support.toy_step import ToyStep

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(name)s %(message)s")
    keywords: dict[str, Any] = {}
    for option in options:
        name, _, value = option.partition("=")
        keywords[name] = value if name in ("group", "source", "state", "name") else float(value)
    if "checkpoint_records" in keywords:
        keywords["checkpoint_records"] = int(keywords["checkpoint_records"])
    keywords["accept_loss"] = bool(keywords.get("accept_loss"))
    stats = RuntimeStats()
    if keywords.pop("figures", None):
        threading.Thread(target=_print_figures, args=(stats,), daemon=True).start()
    run_worker(url, lambda settings: ToyStep, stats=stats, **keywords)


def _print_figures(stats: Any) -> None:
    while True:
        print(
            f"FIGURES {time.time()} {time.process_time()} {stats.records} {stats.events} "
            f"{stats.checkpoints} {stats.checkpoint_s}",
            flush=True,
        )
        time.sleep(0.25)


if __name__ == "__main__":
    main(*sys.argv[1:])

#!/usr/bin/env python3
"""Which rows of the acceptance table a passing test proves; ends with ``N / 231``.

    scripts/acceptance.py                    run every marked test, list the rows
    scripts/acceptance.py --record FILE      list from the record of a run that has been
    … --floor                                fail below the count in tests/acceptance_floor.txt
    … --raise-floor                          write the number of proven rows there, if it is higher

The floor is committed: CI keeps the count from falling.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tests" / "acceptance_rows.tsv"
FLOOR = ROOT / "tests" / "acceptance_floor.txt"

Record = dict[str, dict[str, str]]


def run_marked() -> tuple[Record, int]:
    """Run all tests with a mark; returns the record and pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.json"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "acceptance"]
        done = subprocess.run(
            [*command, f"--acceptance-record={record}"],
            cwd=ROOT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return read_record(record), done.returncode


def read_record(path: Path) -> Record:
    """Row → test → outcome; empty if the run did not get as far as writing it."""
    record: Record = json.loads(path.read_text()) if path.is_file() else {}
    return record


def state_of(tests: dict[str, str]) -> str:
    """``proven`` (one test passes, none fails), ``failing``, ``skipped`` or ``none``."""
    outcomes = set(tests.values())
    if "failed" in outcomes:
        return "failing"
    if "passed" in outcomes:
        return "proven"
    return "skipped" if outcomes else "none"


def print_table(record: Record) -> int:
    """Print every row with its state and tests; returns how many are proven."""
    proven = 0
    system = ""
    with TABLE.open(newline="", encoding="utf-8") as source:
        for row in csv.DictReader(source, delimiter="\t", quoting=csv.QUOTE_NONE):
            if row["system"] != system:
                system = row["system"]
                print(f"\n{system}")
            tests = record.get(row["row"], {})
            state = state_of(tests)
            proven += state == "proven"
            sign = {"proven": "✓", "failing": "✗", "skipped": "s", "none": " "}[state]
            print(f" {sign} {row['row']:>3} {row['behaviour']:<32} {_tests(tests, state)}".rstrip())
            if row["figure"]:
                print(f"       benchmark target: {row['figure']}")
    return proven


def _tests(tests: dict[str, str], state: str) -> str:
    if state == "none":
        return "no test"
    wanted = {"proven": "passed", "failing": "failed", "skipped": "skipped"}[state]
    named = [name for name, outcome in tests.items() if outcome == wanted]
    more = f" (+{len(named) - 1})" if len(named) > 1 else ""
    return ("" if state == "proven" else f"{state}: ") + named[0] + more


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--record", type=Path, help="a file written by --acceptance-record")
    parser.add_argument("--floor", action="store_true", help="fail below the committed count")
    parser.add_argument("--raise-floor", action="store_true", help="commit to the count of now")
    options = parser.parse_args()

    record, code = (read_record(options.record), 0) if options.record else run_marked()
    proven = print_table(record)
    total = sum(1 for _ in TABLE.open(encoding="utf-8")) - 1
    floor = int(FLOOR.read_text())
    if options.raise_floor and proven > floor:
        FLOOR.write_text(f"{proven}\n")
    below = options.floor and proven < floor
    print()
    if below:
        print(f"the count fell below the floor of {floor} (tests/acceptance_floor.txt)")
    print(f"{proven} / {total}")
    return 1 if below or code not in (0, 5) else 0  # 5: no test has a mark yet


if __name__ == "__main__":
    sys.exit(main())

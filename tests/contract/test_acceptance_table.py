"""The table of acceptance rows: complete, and the same as the one it was copied from."""

import csv
import re
from pathlib import Path

import pytest

from support.acceptance import ROWS

ROOT = Path(__file__).resolve().parents[2]
ORIGIN = ROOT.parent / "shared" / "acceptance.md"


def table() -> list[dict[str, str]]:
    with (ROOT / "tests" / "acceptance_rows.tsv").open(newline="", encoding="utf-8") as source:
        return list(csv.DictReader(source, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_every_row_is_there_once() -> None:
    assert [row["row"] for row in table()] == [str(number) for number in range(1, ROWS + 1)]
    assert all(row["system"] and row["behaviour"] for row in table())


def test_the_floor_is_a_count_of_rows() -> None:
    floor = int((ROOT / "tests" / "acceptance_floor.txt").read_text())
    assert 0 <= floor <= ROWS


@pytest.mark.skipif(not ORIGIN.is_file(), reason="the table's origin is not beside this checkout")
def test_names_are_those_of_the_origin() -> None:
    origin = re.findall(r"^\| (\d+) \| (.*?) \|", ORIGIN.read_text(encoding="utf-8"), re.MULTILINE)
    assert [(row["row"], row["behaviour"]) for row in table()] == origin

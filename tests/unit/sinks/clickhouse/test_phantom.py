"""The repair alone, on files: what it drops and what it must not touch."""

from __future__ import annotations

from pathlib import Path

import pytest

from callmeter.errors import CannotWriteError
from callmeter_sinks.clickhouse.phantom import repair

UUID = "abc00000-0000-4000-8000-000000000001"


def table(root: Path, parts: list[str], log: bytes) -> Path:
    home = root / "store" / "abc" / UUID
    for part in parts:
        (home / part).mkdir(parents=True)
    logs = home / "deduplication_logs"
    logs.mkdir(parents=True)
    path = logs / "deduplication_log_1.txt"
    path.write_bytes(log)
    return path


def test_a_line_without_a_part_is_dropped(tmp_path: Path) -> None:
    log = table(tmp_path, ["all_1_1_0"], b"1\tall_1_1_0\tA\n1\tall_2_2_0\tB\n")
    dropped = repair(tmp_path)
    assert [(p.table, p.part, p.block_id) for p in dropped] == [(UUID, "all_2_2_0", "B")]
    assert log.read_bytes() == b"1\tall_1_1_0\tA\n"


def test_a_merged_part_covers_the_blocks_in_it(tmp_path: Path) -> None:
    content = b"1\t202601_1_1_0\tA\n1\t202601_2_2_0\tB\n1\t202602_2_2_0\tC\n"
    log = table(tmp_path, ["202601_1_2_1", "202602_1_3_1_9"], content)
    assert repair(tmp_path) == []
    assert log.read_bytes() == content


def test_a_part_of_another_partition_covers_nothing(tmp_path: Path) -> None:
    table(tmp_path, ["202601_1_5_1"], b"1\t202602_2_2_0\tC\n")
    assert [p.part for p in repair(tmp_path)] == ["202602_2_2_0"]


def test_unfinished_parts_do_not_count(tmp_path: Path) -> None:
    table(tmp_path, ["tmp_insert_all_2_2_0", "delete_tmp_all_2_2_0"], b"1\tall_2_2_0\tB\n")
    assert [p.part for p in repair(tmp_path)] == ["all_2_2_0"]


def test_a_torn_line_is_dropped_and_drop_lines_stay(tmp_path: Path) -> None:
    log = table(tmp_path, ["all_1_1_0"], b"2\tall_9_9_0\tZ\n1\tall_1_1_0\tA\n1\tall_2")
    assert [p.block_id for p in repair(tmp_path)] == ["1\tall_2"]
    assert log.read_bytes() == b"2\tall_9_9_0\tZ\n1\tall_1_1_0\tA"


def test_repairing_twice_changes_nothing_more(tmp_path: Path) -> None:
    table(tmp_path, [], b"1\tall_2_2_0\tB\n")
    assert len(repair(tmp_path)) == 1
    assert repair(tmp_path) == []


def test_a_log_of_unknown_form_is_refused_and_left_alone(tmp_path: Path) -> None:
    log = table(tmp_path, ["all_1_1_0"], b"1\tnew-form\tA\n")
    with pytest.raises(CannotWriteError, match="another version of chDB"):
        repair(tmp_path)
    assert log.read_bytes() == b"1\tnew-form\tA\n"


def test_an_empty_directory_needs_nothing(tmp_path: Path) -> None:
    assert repair(tmp_path) == []

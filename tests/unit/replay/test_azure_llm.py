"""The trace reader: every line becomes one event, and the same event every time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from callmeter.errors import DataError
from callmeter.replay.azure_llm import event_lines, inspect

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def read(path: Path, salt: str = "") -> list[dict[str, object]]:
    trace = inspect(path)
    lines = event_lines(trace, provider="openai", model="gpt-4o-mini", salt=salt)
    return [json.loads(line) for line in lines]


def test_a_line_without_a_final_newline_counts(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text(
        HEADER + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109"
    )
    first, second = read(file)
    assert first["started_us"] == 1_700_158_546_680_590
    assert first["usage"] == {"input": 374, "output": 44}
    assert "latency_us" not in first, "the trace has no latencies"
    assert second["usage"] == {"input": 396, "output": 109}
    assert inspect(file).lines == 2


def test_call_ids_come_from_content_and_line_number(tmp_path: Path) -> None:
    one, two = tmp_path / "a.csv", tmp_path / "b.csv"
    text = HEADER + "2023-11-16 18:15:46,1,2\n2023-11-16 18:15:46,1,2\n"
    one.write_text(text)
    two.write_text(text)
    ids = [event["call_id"] for event in read(one)]
    assert len(set(ids)) == 2
    assert ids == [event["call_id"] for event in read(two)]
    assert not set(ids) & {event["call_id"] for event in read(two, salt="again")}


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("2023-11-16 18:15:46,12", "2 fields instead of 3"),
        ("yesterday,1,2", "not a timestamp: 'yesterday'"),
        ("2023-13-16 18:15:46,1,2", "month must be in 1..12"),
        ("2023-11-16 18:15:46,-1,2", "ContextTokens is not a count: '-1'"),
        ("2023-11-16 18:15:46,1,2.5", "GeneratedTokens is not a count: '2.5'"),
        ("", "1 fields instead of 3"),
        ("1969-12-31 23:59:59,1,2", "a timestamp before 1970: '1969-12-31 23:59:59'"),
    ],
)
def test_a_broken_line_names_file_and_line(tmp_path: Path, line: str, detail: str) -> None:
    file = tmp_path / "broken.csv"
    file.write_text(f"{HEADER}2023-11-16 18:15:46,1,2\n{line}\n2023-11-16 18:15:47,3,4\n")
    good, bad, after = read(file)
    assert (good["kind"], after["kind"]) == ("call_end", "call_end")
    assert bad["kind"] == "input_error"
    assert (bad["file"], bad["line_number"]) == ("broken.csv", 3)
    assert str(bad["detail"]).startswith(detail)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "columns are 'a,b', expected"),
        (HEADER, "has a header line and no data"),
        ("", "columns are ''"),
    ],
)
def test_a_wrong_file_is_refused_whole(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "x.csv"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        inspect(file)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file or directory") as caught:
        inspect(tmp_path / "none.csv")
    assert "\n" not in str(caught.value)

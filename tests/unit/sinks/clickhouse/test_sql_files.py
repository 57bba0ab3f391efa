from __future__ import annotations

import pytest

from callmeter.errors import ConfigError
from callmeter_sinks.clickhouse.sql_files import Deployment, SqlFile, render, shipped, split

TEXT = """
-- a comment; with a semicolon and an 'apostrophe
CREATE TABLE IF NOT EXISTS a ${CL} (k String DEFAULT ';--x''y\\';') -- more
ENGINE = ${R}MergeTree ORDER BY k SETTINGS ${D};
/* one more; */
DROP TABLE IF EXISTS `b;c`;
"""


def test_statements_are_split_at_semicolons_outside_quotes_and_comments() -> None:
    first, second = SqlFile(1, "x", TEXT).statements(Deployment())
    assert first.endswith("SETTINGS non_replicated_deduplication_window = 10000")
    assert "';--x''y\\';'" in first
    assert "comment" not in first
    assert second == "DROP TABLE IF EXISTS `b;c`"


def test_placeholders_of_a_cluster() -> None:
    first = SqlFile(1, "x", TEXT).statements(Deployment(replicated=True, cluster="main"))[0]
    assert "CREATE TABLE IF NOT EXISTS a ON CLUSTER `main` (" in first
    assert "ReplicatedMergeTree" in first
    assert "replicated_deduplication_window = 20000" in first
    assert "replicated_deduplication_window_seconds = 604800" in first
    assert "non_replicated" not in first


def test_the_window_can_be_given() -> None:
    assert "= 77" in render("${D}", Deployment(dedup_window=77))


def test_an_unknown_placeholder_is_refused() -> None:
    with pytest.raises(ConfigError, match="NOPE"):
        render("${NOPE}", Deployment())


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE a (k Int8) ENGINE = Memory",
        "DROP TABLE a",
        "INSERT INTO a SELECT 1",
        "ALTER TABLE a ADD COLUMN b Int8",
    ],
)
def test_a_statement_that_cannot_run_twice_is_refused(statement: str) -> None:
    with pytest.raises(ConfigError, match="cannot be run twice"):
        SqlFile(3, "x", statement).statements(Deployment())


def test_an_alter_that_can_run_twice() -> None:
    sql = (
        "ALTER TABLE a ADD COLUMN IF NOT EXISTS b Int8; ALTER TABLE a MODIFY TTL t + INTERVAL 1 DAY"
    )
    assert len(SqlFile(1, "x", sql).statements(Deployment())) == 2


def test_nothing_but_comments_is_no_statement() -> None:
    assert list(split("-- nothing\n;;\n/* */")) == []


def test_the_shipped_files_render_everywhere() -> None:
    files = shipped()
    assert [file.version for file in files] == list(range(1, len(files) + 1))
    for deployment in (Deployment(), Deployment(True), Deployment(True, "main")):
        for file in files:
            statements = file.statements(deployment)
            assert statements
            assert not any("${" in statement for statement in statements)
    plain = [s for file in files for s in file.statements(Deployment())]
    assert not any("Replicated" in statement for statement in plain)


def test_a_checksum_is_of_the_text_as_shipped() -> None:
    assert SqlFile(1, "x", "a").checksum != SqlFile(1, "x", "b").checksum

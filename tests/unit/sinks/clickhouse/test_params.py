from __future__ import annotations

import pytest

from callmeter.errors import UsageError
from callmeter_sinks.clickhouse.params import checked, format_name, table_name


def test_every_parameter_needs_its_placeholder() -> None:
    assert checked("SELECT {a:String}", {"a": "x"}) == {"a": "x"}
    assert checked("SELECT 1", None) is None
    # Without a placeholder the client would format the value into the text itself.
    with pytest.raises(UsageError, match="no placeholder for b"):
        checked("SELECT %(b)s", {"b": "x"})
    with pytest.raises(UsageError, match="no value given for a"):
        checked("SELECT {a:Map(String, String)}", {})


@pytest.mark.parametrize("name", ["calls", "db.calls", "_x1"])
def test_plain_names_of_tables(name: str) -> None:
    assert table_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "calls; DROP TABLE calls", "a.b.c", "`calls`", "calls\n", "1x"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        table_name(name)
    with pytest.raises(UsageError):
        format_name(name)

from __future__ import annotations

import gzip
from urllib.parse import urlencode

import lz4.frame
import pytest
from backports import zstd

from callmeter_sinks.clickhouse.shim_request import BadRequestError, Request, decoded


def read(query: dict[str, str], body: bytes = b"", **headers: str) -> Request:
    return Request.read(urlencode(query), headers, body)


def test_a_statement_in_the_body() -> None:
    request = read({"max_threads": "1", "param_a": "x\ty", "database": "d"}, b"SELECT {a:String}")
    assert request.sql == "SELECT {a:String}"
    assert request.data is None
    assert request.parameters == {"a": "x\ty"}
    assert request.settings == {"max_threads": "1"}
    assert request.database == "d"
    assert request.default_format == "TabSeparated"


def test_transport_parameters_are_no_settings() -> None:
    request = read({"query": "SELECT 1", "wait_end_of_query": "1", "default_format": "JSON"})
    assert request.settings == {}
    assert request.default_format == "JSON"


def test_an_insert_with_its_data_behind_it() -> None:
    behind = read({}, b"INSERT INTO t (`a`) FORMAT Native\n\x00\xff")
    assert (behind.sql, behind.data) == ("INSERT INTO t (`a`) FORMAT Native", b"\x00\xff")
    beside = read({"query": "INSERT INTO t FORMAT CSV"}, b"1\nFORMAT x\n")
    assert (beside.sql, beside.data) == ("INSERT INTO t FORMAT CSV", b"1\nFORMAT x\n")


def test_an_insert_that_selects_has_no_data() -> None:
    assert read({}, b"INSERT INTO t SELECT 1").data is None


def test_a_form() -> None:
    body = (
        b'--X\r\nContent-Disposition: form-data; name="query"\r\n\r\nSELECT {a:String}\r\n'
        b'--X\r\nContent-Disposition: form-data; name="param_a"\r\n\r\n\xc3\xa9\r\n--X--\r\n'
    )
    headers = {"content-type": "multipart/form-data; boundary=X"}
    request = Request.read("max_threads=1", headers, body)
    assert request.sql == "SELECT {a:String}"
    assert request.parameters == {"a": "é"}
    assert request.settings == {"max_threads": "1"}


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [("gzip", gzip.compress), ("lz4", lz4.frame.compress), ("zstd", zstd.compress)],
)
def test_encodings(encoding: str, encode) -> None:
    assert decoded(encode(b"hello"), encoding) == b"hello"
    with pytest.raises(BadRequestError, match=encoding):
        decoded(b"not that at all", encoding)


def test_an_unknown_encoding_and_bad_text_are_refused() -> None:
    with pytest.raises(BadRequestError, match="br"):
        decoded(b"x", "br")
    with pytest.raises(BadRequestError, match="UTF-8"):
        read({}, b"SELECT \xff")

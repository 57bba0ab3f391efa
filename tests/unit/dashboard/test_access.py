"""Who may look: keys, sessions, and where a sign-in may lead."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from callmeter_sinks.dashboard.access import COOKIE, SESSION_S, Reader, Sessions, local_path

READER = Reader(frozenset({"shop"}))


class Keys:
    """One key, until it is revoked."""

    def __init__(self) -> None:
        self.valid = True

    def __call__(self, authorization: str | None) -> Reader | None:
        return READER if self.valid and authorization == "Bearer a-read-key" else None


def request(cookie: str = "", authorization: str = ""):
    headers = {"Cookie": f"{COOKIE}={cookie}"} if cookie else {}
    if authorization:
        headers["Authorization"] = authorization
    return make_mocked_request("GET", "/", headers=headers)


def test_a_key_reads_by_header_and_a_session_by_cookie() -> None:
    sessions = Sessions(Keys())
    assert sessions.needed
    assert sessions.reader(request()) is None
    assert sessions.reader(request(authorization="Bearer a-read-key")) is READER
    assert sessions.reader(request(authorization="Bearer other")) is None
    assert sessions.begin("other") is None
    assert sessions.begin("") is None
    cookie = sessions.begin("a-read-key")
    assert cookie is not None
    assert "a-read-key" not in cookie
    assert sessions.reader(request(cookie)) is READER
    # A header that is wrong is not helped by a cookie.
    assert sessions.reader(request(cookie, "Bearer other")) is None
    assert sessions.reader(request(cookie + "x")) is None


def test_a_session_ends_by_signing_out_by_time_and_with_its_key() -> None:
    now_s = [0.0]
    keys = Keys()
    sessions = Sessions(keys, now_s=lambda: now_s[0])
    first, second = sessions.begin("a-read-key"), sessions.begin("a-read-key")
    assert first != second
    assert first is not None
    assert second is not None
    sessions.end(request(first))
    assert sessions.reader(request(first)) is None
    keys.valid = False
    assert sessions.reader(request(second)) is None
    keys.valid = True
    assert sessions.reader(request(second)) is READER
    now_s[0] = SESSION_S
    assert sessions.reader(request(second)) is None


def test_sessions_are_bounded_and_the_oldest_goes_first() -> None:
    sessions = Sessions(Keys())
    cookies = [sessions.begin("a-read-key") for _ in range(1001)]
    assert sessions.reader(request(cookies[0] or "")) is None
    assert sessions.reader(request(cookies[1] or "")) is READER


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "",
     "evil", "/x\r\nSet-Cookie: a=b", "/\x00"],
)  # fmt: skip
def test_a_sign_in_leads_nowhere_else(wanted: str) -> None:
    assert local_path(wanted) == "/"


def test_a_sign_in_leads_to_the_page_that_was_asked_for() -> None:
    assert local_path("/calls?project=a%20b&before=2026-01-01") == (
        "/calls?project=a%20b&before=2026-01-01"
    )

"""The dashboard over plain HTTP: headers, files, keys, hostile addresses, and its own command."""

from __future__ import annotations

import http.client
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import pytest
import trustme

import callmeter as sdk
from callmeter.embedded import running
from support.cli import callmeter, started
from support.embedded import Pipeline

PAGES = ("/", "/budgets", "/calls", "/experiments", "/data-health", f"/trace/{'0' * 32}",
         "/alert/none/trace", "/panels/users", "/panels/errors",
         "/panels/services", "/panels/durations", "/?range=7y")  # fmt: skip
READ_ALL, READ_ONE = "read-all-key-0123", "read-one-key-0123"


class Answer:
    """One answer, read whole."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def text(self) -> str:
        return self.body.decode()


def ask(
    url: str,
    path: str,
    method: str = "GET",
    body: str | None = None,
    trust: ssl.SSLContext | None = None,
    **headers: str,
) -> Answer:
    at = urlsplit(url).netloc
    connection = http.client.HTTPConnection(at, timeout=60)
    if trust is not None:
        connection = http.client.HTTPSConnection(at, timeout=60, context=trust)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers=named)
        return Answer(connection.getresponse())
    finally:
        connection.close()


@contextmanager
def dashboard(pipeline: Pipeline, *options: str) -> Iterator[str]:
    """``callmeter dashboard`` beside a running ``up``, over the store's port."""
    owner = running(pipeline.directory)
    assert owner is not None
    with started("dashboard", "--store", owner.store_url, "--port", 0, *options) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"https?://\S+:\d+", line)
        assert found is not None, line
        yield found[0]
        process.terminate()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert "Traceback" not in err


@pytest.fixture(scope="module")
def two_projects(embedded: Pipeline) -> Pipeline:
    """A call in each of two projects, stored."""
    for project in ("served-mine", "served-theirs"):
        client = sdk.init(embedded.url, project=project)
        with sdk.generation(model=f"model-of-{project}", provider="openai") as call:
            call.usage(input=10, output=5)
        assert sdk.flush(30).ok
        stats = sdk.stats()
        embedded.settle(stats.source, stats.envelopes)
        client.close()
    return embedded


@pytest.fixture(scope="module")
def keyed(two_projects: Pipeline) -> Iterator[str]:
    with dashboard(
        two_projects, "--read-key", READ_ALL, "--read-key", f"{READ_ONE}:served-mine"
    ) as url:
        yield url


@pytest.mark.parametrize("path", PAGES)
def test_every_answer_forbids_what_pages_do_not_need(embedded: Pipeline, path: str) -> None:
    answer = ask(embedded.url, path)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    inline = re.findall(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", answer.text)
    assert inline == []
    hosts = re.findall(r"""(?:src|href|action)=["'](?:https?:)?//""", answer.text)
    assert hosts == []


def test_files_are_kept_for_ever_under_their_version_and_asked_for_else(
    embedded: Pipeline,
) -> None:
    page = ask(embedded.url, "/budgets").text
    found = re.search(r'src="(/assets/\w+/dashboard\.js)"', page)
    assert found is not None
    first = ask(embedded.url, found[1], Accept_Encoding="gzip")
    assert first.status == 200
    assert "immutable" in first.headers["Cache-Control"]
    assert first.headers["Content-Encoding"] == "gzip"
    assert first.headers["Content-Type"].startswith("text/javascript")
    again = ask(embedded.url, found[1], If_None_Match=first.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    other = ask(embedded.url, "/assets/older/dashboard.js")
    assert (other.status, other.headers["Cache-Control"]) == (200, "no-cache")
    for path in ("/assets/x/../rendering.py", "/assets/x/%2e%2e/rendering.py",
                 "/assets/x/..%2frendering.py", "/assets/x//etc/passwd", "/assets/x/"):  # fmt: skip
        assert ask(embedded.url, path).status == 404


def test_without_keys_only_this_machine_is_served(embedded: Pipeline, two_projects) -> None:
    with dashboard(embedded) as url:
        for base in (embedded.url, url):
            assert ask(base, "/", Host="evil.example").status == 403
            foreign = ask(base, "/data-health/verify", "POST", Origin="https://evil.example")
            assert foreign.status == 403
        assert "served-mine" in ask(url, "/").text


def test_an_address_beyond_this_machine_needs_a_key(embedded: Pipeline) -> None:
    owner = running(embedded.directory)
    assert owner is not None
    ran = callmeter("dashboard", "--store", owner.store_url, "--host", "0.0.0.0", "--port", "0")
    assert ran.code == 78
    assert "--read-key" in ran.err


def test_https_with_keys_of_a_file_until_they_are_revoked(
    two_projects: Pipeline, tmp_path: Path
) -> None:
    authority = trustme.CA()
    cert, secret, keys = (tmp_path / name for name in ("cert.pem", "key.pem", "keys.json"))
    made = authority.issue_cert("0.0.0.0")  # the name in the URL that it prints
    secret.write_bytes(made.private_key_pem.bytes())
    cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    ran = callmeter("keys", "create", "--keys-file", keys, "--scope", "read",
                    "--project", "served-mine", "--name", "page", "--json")  # fmt: skip
    key = ran.json()["key"]
    options = ("--host", "0.0.0.0", "--keys-file", keys, "--tls-cert", cert, "--tls-key", secret)
    with dashboard(two_projects, *map(str, options)) as url:
        assert url.startswith("https://")
        assert ask(url, "/", trust=trust).status == 401
        bearer = {"Authorization": f"Bearer {key}"}
        page = ask(url, "/calls", trust=trust, **bearer).text
        assert "model-of-served-mine" in page
        assert "model-of-served-theirs" not in page
        signed = ask(url, "/sign-in", "POST", urlencode({"key": key}), trust=trust,
                     Content_Type="application/x-www-form-urlencoded")  # fmt: skip
        assert "Secure" in signed.headers["Set-Cookie"]
        session = signed.headers["Set-Cookie"].partition(";")[0]
        assert callmeter("keys", "revoke", "page", "--keys-file", keys).code == 0
        until_s = time.monotonic() + 60
        while ask(url, "/", trust=trust, Cookie=session).status != 401:
            assert time.monotonic() < until_s, "a revoked key still signs in"
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("options", "says"),
    [(("--tls-cert", "cert.pem"), "--tls-key"), (("--keys-file", "nowhere"), "keys create")],
)
def test_half_a_pair_and_a_file_that_is_not_there_are_refused(
    embedded: Pipeline, options: tuple[str, str], says: str
) -> None:
    owner = running(embedded.directory)
    assert owner is not None
    ran = callmeter("dashboard", "--store", owner.store_url, "--port", "0", *options)
    assert ran.code == 78
    assert says in ran.err


def test_a_probe_needs_no_key(keyed: str) -> None:
    assert ask(keyed, "/healthz").text == '{"status": "ok"}'


@pytest.mark.parametrize("path", [*PAGES, "/stream"])
def test_without_a_key_there_is_the_form_and_nothing_else(keyed: str, path: str) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong-key-000"},
        {"Cookie": "callmeter_session=x"},
    ):
        answer = ask(keyed, path, **headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert "Read key" in answer.text
        assert "served-" not in answer.text


def test_a_key_signs_in_and_its_cookie_is_no_scripts_business(keyed: str) -> None:
    refused = ask(keyed, "/sign-in", "POST", urlencode({"key": "wrong-key-000", "to": "/calls"}),
                  Content_Type="application/x-www-form-urlencoded")  # fmt: skip
    assert refused.status == 401
    assert "Set-Cookie" not in refused.headers
    assert "wrong-key-000" not in refused.text
    answer = ask(keyed, "/sign-in", "POST",
                 urlencode({"key": READ_ALL, "to": "//evil.example/x"}),
                 Content_Type="application/x-www-form-urlencoded")  # fmt: skip
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert READ_ALL not in cookie
    session = cookie.partition(";")[0]
    assert "served-theirs" in ask(keyed, "/", Cookie=session).text
    out = ask(keyed, "/sign-out", "POST", Cookie=session)
    assert out.status == 303
    assert ask(keyed, "/", Cookie=session).status == 401


@pytest.mark.parametrize(
    ("body", "kind"),
    [("", ""), ("key=%ff%fe", "application/x-www-form-urlencoded"),
     ("--x\r\nbroken", "multipart/form-data; boundary=x"),
     ("key=" + "x" * 5000, "application/x-www-form-urlencoded"),
     ('{"key": 1}', "application/json")],
)  # fmt: skip
def test_a_broken_sign_in_is_refused(keyed: str, body: str, kind: str) -> None:
    answer = ask(keyed, "/sign-in", "POST", body, Content_Type=kind)
    assert answer.status in (400, 401)
    assert "Traceback" not in answer.text


def test_a_key_of_one_project_sees_that_project_alone(keyed: str, two_projects: Pipeline) -> None:
    mine = {"Authorization": f"Bearer {READ_ONE}"}
    theirs = two_projects.queries.calls(project="served-theirs")[0]
    for path in ("/", "/calls", "/budgets", "/experiments", "/data-health", "/panels/users"):
        for query in (
            "",
            "?project=served-theirs",
            "?project=",
            "?range=all&project=served-theirs",
        ):
            answer = ask(keyed, path + query, **mine)
            assert answer.status == 200
            assert "model-of-served-theirs" not in answer.text
            assert 'value="served-theirs"' not in answer.text
    assert "model-of-served-mine" in ask(keyed, "/calls", **mine).text
    assert ask(keyed, f"/trace/{theirs.trace_id}", **mine).status == 404
    assert ask(keyed, "/data-health/verify", "POST", **mine).status == 403
    everything = {"Authorization": f"Bearer {READ_ALL}"}
    assert ask(keyed, f"/trace/{theirs.trace_id}", **everything).status == 200


@pytest.mark.parametrize(
    "name",
    ["project", "range", "since", "until", "model", "user", "status", "tag:a", "tag:'x", "before",
     "q", "meta", "run", "metric", "split", "x", "seen"],
)  # fmt: skip
@pytest.mark.parametrize(
    "value",
    ["' OR 1=1 --", "x'); DROP TABLE calls; --", "{p0:String}", "\\", "%00", "\ud83d", "a" * 400],
)  # fmt: skip
def test_nothing_in_an_address_becomes_a_statement(
    two_projects: Pipeline, name: str, value: str
) -> None:
    text = f"{quote(name, safe='')}={quote(value.encode('utf-8', 'surrogatepass'), safe='%')}"
    path = "/experiments" if name in ("q", "meta", "run", "metric", "split", "x") else "/calls"
    answer = ask(two_projects.url, f"{path}?{text}&run=a/b")
    assert answer.status in (200, 400), answer.text[:2000]
    if name in ("project", "model", "user", "status", "tag:a", "tag:'x"):
        assert "model-of-served" not in answer.text
    assert two_projects.queries.calls(project="served-mine")

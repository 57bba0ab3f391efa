"""The collector's routes around experiments: keys, limits, repetition, credentials that expire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession, web

from callmeter.clock import ManualClock
from callmeter.collector.app import make_app, make_runner
from callmeter.collector.config import CollectorConfig
from callmeter.collector.experiments import experiment_routes
from callmeter.collector.experiments_fields import experiment_id, split_id
from callmeter.collector.keys import KeyRing
from callmeter.collector.memory import MemoryAppender
from callmeter.errors import UnreachableError, UsageError
from callmeter.schema.envelope import split_lines

KEYS = ["shop-key-1:shop", "both-key-1:shop,search"]
SHOP = {"Authorization": "Bearer shop-key-1"}
READS = {"Authorization": "Bearer read-key-1"}
RUN = experiment_id("shop", "run")


@dataclass
class Found:
    """Rows as the queries give them, by attribute."""

    rows: list[Any] = field(default_factory=list)
    steps: tuple[int | None, ...] = (1, None)
    timestamps: tuple[datetime, ...] = (datetime(2024, 1, 1, 0, 0, 0, 123999, tzinfo=UTC),) * 2
    values: tuple[float, ...] = (0.5, 1.5)


class Stored:
    """A reader that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.fails: Exception | None = None
        self.store = self

    def _answer(self, *asked: Any) -> Found:
        self.asked.append(asked)
        if self.fails is not None:
            raise self.fails
        return Found(rows=[("id-1",)])

    def query(self, sql: str, params: Any = None) -> Found:
        return self._answer("query", params)

    def series(self, name: str, **question: Any) -> Found:
        return self._answer("series", name, question)

    def catalog(self, **question: Any) -> list[Any]:
        self._answer("catalog", question)
        return []

    def experiments(self, **question: Any) -> list[Any]:
        self._answer("experiments", question)
        return []


class Server:
    """A running collector, its log, its clock and one client of it."""

    def __init__(self, url: str, log: MemoryAppender, clock: ManualClock, reader: Stored) -> None:
        self.url, self.log, self.clock, self.reader = url, log, clock, reader
        self.session = ClientSession()

    async def post(self, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else orjson.dumps(body or {})
        async with self.session.post(self.url + path, data=data, headers=headers) as answer:
            return answer.status, orjson.loads(await answer.read())

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self.session.get(self.url + path, headers=headers) as answer:
            return answer.status, orjson.loads(await answer.read())

    def events(self) -> list[dict[str, Any]]:
        """What was said so far; a source stays in one partition, so in order."""
        records = [record for partition in self.log.records for record in partition]
        lines = [line for record in records for line in split_lines(record.value)[1:]]
        return [orjson.loads(line) for line in lines]


async def serve(keys: KeyRing, *, with_reader: bool = True) -> AsyncIterator[Server]:
    log, clock, reader = MemoryAppender(), ManualClock(), Stored()
    routes = experiment_routes(reader if with_reader else None)
    app = make_app(log, CollectorConfig(port=0, keys=keys), extra_routes=routes, clock=clock)
    runner = make_runner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server = Server(f"http://{host}:{port}", log, clock, reader)
    yield server
    await server.session.close()
    await runner.cleanup()


@pytest.fixture
async def keyed() -> AsyncIterator[Server]:
    async for server in serve(KeyRing.parse(KEYS, ["read-key-1:shop"])):
        yield server


@pytest.fixture
async def open_() -> AsyncIterator[Server]:
    async for server in serve(KeyRing()):
        yield server


def test_an_id_says_project_and_slug():
    for project, slug in (("shop", "run-1"), ("größe", "a/b\tc"), ("p", "x" * 200)):
        name = experiment_id(project, slug)
        assert name.replace("-", "").replace("_", "").isalnum()
        assert split_id(name) == (project, slug)


async def test_creating_says_the_experiment_once_for_one_idempotency_key(keyed):
    body = {"slug": "run", "description": "d", "metadata": {"z": 1, "a": 2}, "folder_id": "f-1"}
    first = await keyed.post("/v1/experiments", body, **SHOP, **{"Idempotency-Key": "k1"})
    again = await keyed.post("/v1/experiments", body, **SHOP, **{"Idempotency-Key": "k1"})
    assert first[0] == again[0] == 201
    made = first[1]["experiment"]
    assert made["id"] == RUN == again[1]["experiment"]["id"]
    assert made["url"] == f"{keyed.url}/v1/experiments/{RUN}"
    assert made["project"] == "shop"
    said = keyed.events()
    assert [e["slug"] for e in said] == ["run", "run"]
    assert list(said[0]["meta"]) == ["z", "a"]
    assert said[1]["meta"] == {"callmeter.folder_id": "f-1"}
    await keyed.post("/v1/experiments", body, **SHOP, **{"Idempotency-Key": "k2"})
    assert len(keyed.events()) == 4


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        {},
        {"slug": ""},
        {"slug": 7},
        {"slug": "x" * 201},
        {"slug": "s", "description": "x" * 4001},
        {"slug": "s", "metadata": [1]},
        {"slug": "s", "metadata": {"k": "v" * 65536}},
        {"slug": "s", "folder_id": 7},
    ],
)
async def test_bad_experiments_are_refused(open_, body):
    status, answer = await open_.post("/v1/experiments", body)
    assert status == 400
    assert answer["error"]
    assert open_.events() == []


async def test_keys_bound_to_projects(keyed):
    body = {"slug": "s"}
    assert (await keyed.post("/v1/experiments", body))[0] == 401
    assert (await keyed.post("/v1/experiments", body, **READS))[0] == 403
    wrong = {**body, "project": "search"}
    assert (await keyed.post("/v1/experiments", wrong, **SHOP))[0] == 403
    both = {"Authorization": "Bearer both-key-1"}
    assert (await keyed.post("/v1/experiments", body, **both))[0] == 403  # which of the two?
    assert (await keyed.post("/v1/experiments", wrong, **both))[0] == 201
    assert len(keyed.events()) == 1


async def test_a_credential_writes_expires_and_makes_no_other(keyed):
    _, made = await keyed.post("/v1/experiments", {"slug": "s"}, **SHOP)
    token = {"Authorization": f"Bearer {made['credential']}"}
    assert (await keyed.post("/v1/experiments", {"slug": "s"}, **token))[0] == 201
    assert (await keyed.get(f"/v1/experiments/{RUN}/series?name=m", **token))[0] == 403
    assert (await keyed.post("/v1/credentials/refresh", **token))[0] == 403
    other = {"slug": "s", "project": "search"}
    assert (await keyed.post("/v1/experiments", other, **token))[0] == 403
    keyed.clock.advance(899)
    assert (await keyed.post("/v1/experiments", {"slug": "s"}, **token))[0] == 201
    keyed.clock.advance(2)
    assert (await keyed.post("/v1/experiments", {"slug": "s"}, **token))[0] == 401
    status, fresh = await keyed.post("/v1/credentials/refresh", **SHOP)
    assert (status, fresh["expires_in_s"]) == (200, 900.0)
    token = {"Authorization": f"Bearer {fresh['credential']}"}
    assert (await keyed.post("/v1/experiments", {"slug": "s"}, **token))[0] == 201


async def test_without_keys_there_is_no_credential(open_):
    expected = {"credential": None, "expires_in_s": None}
    assert await open_.post("/v1/credentials/refresh") == (200, expected)


async def test_series(keyed):
    path = f"/v1/experiments/{RUN}/series"
    query = "?name=loss&metadata=split%3Dtrain&metadata=rank&order_by=timestamp&direction=desc"
    status, answer = await keyed.get(path + query + "&limit=5", **READS)
    assert status == 200
    assert answer == {
        "name": "loss",
        "steps": [1, None],
        "timestamps": [1704067200123] * 2,
        "values": [0.5, 1.5],
    }
    assert keyed.reader.asked == [
        (
            "series",
            "loss",
            {
                "experiment": "run",
                "project": "shop",
                "labels": ["split=train", "rank"],
                "order": "timestamp",
                "descending": True,
                "limit": 5,
            },
        )
    ]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/v1/experiments/{RUN}/series", 400),
        (f"/v1/experiments/{RUN}/series?name=m&order_by=value", 400),
        (f"/v1/experiments/{RUN}/series?name=m&direction=up", 400),
        (f"/v1/experiments/{RUN}/series?name=m&limit=-1", 400),
        ("/v1/experiments/nonsense/series?name=m", 404),
        ("/v1/experiments/x/series?name=m", 404),
        (f"/v1/experiments/{experiment_id('search', 'run')}/series?name=m", 403),
        (f"/v1/experiments/{experiment_id('search', 'run')}", 403),
        (f"/v1/experiments/{RUN}", 404),
        ("/v1/catalog?project=search", 403),
        ("/v1/catalog?experiment=run", 200),
        ("/v1/folders?path=/a", 200),
        ("/v1/folders?path=a", 400),
        ("/v1/folders", 400),
    ],
)
async def test_answers_to_questions(keyed, path, status):
    assert (await keyed.get(path, **READS))[0] == status


async def test_who_writes_may_look_for_a_folder(keyed):
    assert await keyed.get("/v1/folders?path=/a/", **SHOP) == (
        200,
        {"folders": [{"id": "id-1", "path": "/a"}]},
    )
    assert keyed.reader.asked == [("query", {"project": "shop", "path": "/a"})]


async def test_a_folder_is_a_note_of_its_project(keyed):
    status, made = await keyed.post("/v1/folders", {"path": "/a/b"}, **SHOP)
    assert status == 201
    (note,) = keyed.events()
    folder = {"id": made["folder"]["id"], "path": "/a/b"}
    assert note["metadata"] == {"callmeter.folder": folder}
    assert (await keyed.post("/v1/folders", {"path": "b"}, **SHOP))[0] == 400


@pytest.mark.parametrize(
    ("error", "status"),
    [(UsageError("no"), 400), (UnreachableError("away"), 503)],
)
async def test_a_store_that_fails(keyed, error, status):
    keyed.reader.fails = error
    assert (await keyed.get("/v1/catalog", **READS))[0] == status


async def test_without_a_store_questions_are_not_answered():
    async for server in serve(KeyRing(), with_reader=False):
        assert (await server.get("/v1/catalog"))[0] == 501
        assert (await server.post("/v1/experiments", {"slug": "s"}))[0] == 201

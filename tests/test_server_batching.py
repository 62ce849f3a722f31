"""What arrives together is encoded together; what is too much is sent away; what takes too long is given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from server_kit import fill, library, sentence

from ragindex import Index
from ragindex.errors import UsageError
from ragindex.server import Limits, create_app
from ragindex.server.batching import Batcher


class Work:
    """Doubles numbers, waits at a gate, and remembers its batches; a negative number is an error."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.batches: list[tuple[str, list[int]]] = []

    def __call__(self, key: str, items: list[int]) -> Sequence[int]:
        self.batches.append((key, items))
        self.begun.set()
        assert self.gate.wait(60)
        if any(item < 0 for item in items):
            raise ValueError("negative")
        return [2 * item for item in items]


def run(scenario: Callable[[Work, Batcher[str, int, int]], Awaitable[Any]], *, most: int = 4) -> tuple[Work, Any]:
    async def whole() -> tuple[Work, Any]:
        work = Work()
        batcher: Batcher[str, int, int] = Batcher(work, most=most, name="test")
        try:
            result = await scenario(work, batcher)
        finally:
            work.gate.set()
            await batcher.close()
        return work, result

    return asyncio.run(whole())


async def begun(work: Work) -> None:
    await asyncio.to_thread(work.begun.wait, 60)


def test_what_waits_becomes_one_batch() -> None:
    async def scenario(work: Work, batcher: Batcher[str, int, int]) -> list[list[int]]:
        first = asyncio.create_task(batcher.submit("a", [1]))
        await begun(work)
        rest = [asyncio.create_task(batcher.submit("a", [number])) for number in (2, 3, 4)]
        await asyncio.sleep(0)
        work.gate.set()
        return list(await asyncio.gather(first, *rest))

    work, results = run(scenario)
    assert results == [[2], [4], [6], [8]]
    assert work.batches == [("a", [1]), ("a", [2, 3, 4])]


def test_batches_are_bounded_and_shared_fairly() -> None:
    async def scenario(work: Work, batcher: Batcher[str, int, int]) -> list[list[int]]:
        large = asyncio.create_task(batcher.submit("a", list(range(8))))
        await begun(work)
        small = asyncio.create_task(batcher.submit("a", [100]))
        await asyncio.sleep(0)
        work.gate.set()
        return [await small, await large]

    work, results = run(scenario)
    assert results == [[200], [2 * number for number in range(8)]]
    assert [sorted(items) for _, items in work.batches] == [[0, 1, 2, 3], [4, 5, 6, 100], [7]]


def test_kinds_of_work_take_turns_and_never_mix() -> None:
    async def scenario(work: Work, batcher: Batcher[str, int, int]) -> Any:
        jobs = [asyncio.create_task(batcher.submit("a", list(range(8))))]
        await begun(work)
        jobs.append(asyncio.create_task(batcher.submit("b", [50])))
        await asyncio.sleep(0)
        work.gate.set()
        return await asyncio.gather(*jobs)

    work, results = run(scenario)
    assert [key for key, _ in work.batches] == ["a", "b", "a"]
    assert results[1] == [100]


def test_nobody_fails_for_another() -> None:
    async def scenario(work: Work, batcher: Batcher[str, int, int]) -> Any:
        jobs = [asyncio.create_task(batcher.submit("a", [1]))]
        await begun(work)
        jobs += [asyncio.create_task(batcher.submit("a", [number])) for number in (2, -1, 3)]
        await asyncio.sleep(0)
        work.gate.set()
        return await asyncio.gather(*jobs, return_exceptions=True)

    _, (first, second, wrong, third) = run(scenario)
    assert (first, second, third) == ([2], [4], [6])
    assert isinstance(wrong, ValueError)


def test_what_was_given_up_is_left_out() -> None:
    async def scenario(work: Work, batcher: Batcher[str, int, int]) -> Any:
        first = asyncio.create_task(batcher.submit("a", [1]))
        await begun(work)
        jobs = [asyncio.create_task(batcher.submit("a", [number])) for number in (2, 3)]
        await asyncio.sleep(0)
        jobs[0].cancel()
        await asyncio.sleep(0)
        work.gate.set()
        return await asyncio.gather(first, jobs[1])

    work, _ = run(scenario)
    assert work.batches[1:] == [("a", [3])]


def test_nothing_needs_no_work() -> None:
    work, result = run(lambda _, batcher: batcher.submit("a", []))
    assert (work.batches, result) == ([], [])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_dir: Path) -> Path:
    return fill(tmp_path_factory.mktemp("documents"), tiny_encoder_dir)


class Gate:
    """Holds the calls of one of Index's methods until it is opened; counts who came."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.open = threading.Event()
        self.came: list[Any] = []
        method = getattr(Index, name)

        def held(index: Index, *arguments: Any, **options: Any) -> Any:
            self.came.append(arguments[0] if arguments else None)
            assert self.open.wait(60)
            return method(index, *arguments, **options)

        monkeypatch.setattr(Index, name, held)


def serving(
    store: Path, limits: Limits, scenario: Callable[[Callable[..., asyncio.Task[httpx2.Response]], Any], Awaitable[Any]]
) -> Any:
    """Run a scenario that may send several requests at once to an app in this process."""

    async def whole() -> Any:
        app = create_app(library(store), limits=limits)
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client:

            def post(path: str, **body: Any) -> asyncio.Task[httpx2.Response]:
                return asyncio.create_task(client.post(path, json=body))

            try:
                return await scenario(post, app.state.desk)
            finally:
                await app.state.desk.close()

    return asyncio.run(whole())


async def true(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def test_queries_that_arrive_together_are_encoded_as_one_batch(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, "prepare_queries")
    queries = [f"kettle {number}" for number in range(6)]

    async def scenario(post: Any, desk: Any) -> list[httpx2.Response]:
        first = post("/api/search", query=queries[0], k=2)
        await true(lambda: len(gate.came) == 1)
        rest = [post("/api/search", query=query, k=2) for query in queries[1:]]
        await true(lambda: desk.admission.inside == 6)
        await asyncio.sleep(0.05)  # the last one may still be on its way from the door to the queue
        gate.open.set()
        return list(await asyncio.gather(first, *rest))

    replies = serving(store, Limits(), scenario)
    assert gate.came[0] == queries[:1]
    assert sorted(query for batch in gate.came[1:] for query in batch) == queries[1:]
    assert len(gate.came) < 6
    with Index.open(store, create=False) as index:
        for query, reply in zip(queries, replies, strict=True):
            assert [hit["chunk_id"] for hit in reply.json()["hits"]] == [
                hit.chunk_id for hit in index.search(query, k=2)
            ]


def test_one_bad_instruction_spoils_nobody_elses_query(store: Path) -> None:
    async def scenario(post: Any, desk: Any) -> list[httpx2.Response]:
        bad = {"instruction": "word " * 1600}
        asked = [post("/api/search", query=f"kettle {number}", **(bad if number == 2 else {})) for number in range(5)]
        return list(await asyncio.gather(*asked))

    assert [reply.status_code for reply in serving(store, Limits(), scenario)] == [200, 200, 400, 200, 200]


def test_under_load_new_requests_are_told_to_come_again(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, "search")

    async def scenario(post: Any, desk: Any) -> Any:
        inside = [post("/api/search", query="kettle", mode="lexical") for _ in range(3)]
        await true(lambda: desk.admission.inside == 3)
        refused = await post("/api/search", query="kettle", mode="lexical")
        embeddings = await post("/v1/embeddings", input="x", model="m")
        gate.open.set()
        answered = await asyncio.gather(*inside)
        again = await post("/api/search", query="kettle", mode="lexical")
        return refused, embeddings, answered, again, desk.admission

    refused, embeddings, answered, again, admission = serving(store, Limits(running=1, waiting=2), scenario)
    for reply in (refused, embeddings):
        assert reply.status_code == 503
        assert reply.headers["retry-after"] == "1"
        assert "busy with 3 requests" in sentence(reply)
    assert [reply.status_code for reply in (*answered, again)] == [200] * 4
    assert (admission.inside, admission.refused) == (0, 2)
    assert len(gate.came) == 4


def test_an_answer_that_takes_too_long_is_given_up_and_its_place_is_free(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, "search")

    async def scenario(post: Any, desk: Any) -> Any:
        # One thread: the second request never gets to run, and must not run after it was given up either.
        late = await asyncio.gather(*[post("/api/search", query="kettle", mode="lexical") for _ in range(2)])
        inside = desk.admission.inside
        gate.open.set()
        return late, inside

    late, inside = serving(store, Limits(running=1, waiting=5, seconds=0.3), scenario)
    assert inside == 0
    assert len(gate.came) == 1
    for reply in late:
        assert reply.status_code == 504
        assert "--timeout" in sentence(reply)


def test_nothing_is_begun_for_a_client_that_has_gone(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, "search")
    body = b'{"query": "kettle", "mode": "lexical"}'

    async def whole() -> None:
        app = create_app(library(store), limits=Limits(running=1))
        desk = app.state.desk

        async def request(left: asyncio.Event) -> list[Any]:
            messages = [{"type": "http.request", "body": body, "more_body": False}]
            sent: list[Any] = []

            async def receive() -> Any:
                if messages:
                    return messages.pop()
                await left.wait()
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                sent.append(message)

            headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
            scope = {"type": "http", "method": "POST", "path": "/api/search", "headers": headers, "query_string": b""}
            await app(scope | {"scheme": "http", "root_path": ""}, receive, send)
            return sent

        first_left, second_left = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(request(first_left))
        await true(lambda: len(gate.came) == 1)
        second = asyncio.create_task(request(second_left))
        await true(lambda: desk.admission.inside == 2)
        second_left.set()
        assert await second == []
        assert desk.admission.inside == 1
        gate.open.set()
        assert (await first)[0]["status"] == 200
        await desk.close()

    asyncio.run(whole())
    assert len(gate.came) == 1


@pytest.mark.parametrize("limits", [{"running": 0}, {"seconds": 0}, {"waiting": -1}, {"body_bytes": -5}])
def test_limits_that_let_nothing_in_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="must"):
        Limits(**limits)

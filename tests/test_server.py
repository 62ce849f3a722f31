"""The server's API over documents: search, the text around a passage, lists, status, errors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from index_kit import open_index, write
from server_kit import HOSTILE, fill, library, sentence
from starlette.testclient import TestClient
from tiny import tiny_encoder

from ragindex import Index
from ragindex.server import create_app


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_dir: Path) -> Path:
    return fill(tmp_path_factory.mktemp("documents"), tiny_encoder_dir)


@pytest.fixture(scope="module")
def client(store: Path) -> Iterator[TestClient]:
    with TestClient(create_app(library(store)), base_url="http://127.0.0.1") as client:
        yield client


@pytest.mark.parametrize(
    "more",
    [
        {"explain": True, "diversity": 0.5},
        {"mode": "dense", "instruction": "Find", "filter": "path like 'doc%'"},
        {"mode": "lexical", "context": 64},
    ],
)
def test_search_says_what_the_command_line_says(client: TestClient, store: Path, more: dict[str, object]) -> None:
    reply = client.post("/api/search", json={"query": "kettle water", "k": 3, **more})
    options = [f"--{name}" if value is True else f"--{name}={value}" for name, value in more.items()]
    command = [sys.executable, "-m", "ragindex", "query", "kettle water", "-k", "3", "--json", *options]
    done = subprocess.run(command, cwd=store.parent, capture_output=True, text=True)
    assert reply.json() == json.loads(done.stdout), done.stderr
    assert len(reply.json()["hits"]) > 0


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_hits_quote_their_document(client: TestClient, mode: str) -> None:
    hits = client.post("/api/search", json={"query": "rotate the signing key", "mode": mode, "k": 5}).json()["hits"]
    assert len(hits) == 5
    for hit in hits:
        place = {"path": hit["path"], "start": hit["char_start"], "end": hit["char_end"], "around": 50}
        found = client.get("/api/document", params=place).json()
        assert found["passage"] == hit["text"]


def test_no_hit_is_an_empty_list(client: TestClient) -> None:
    for diversity in (0, 0.5):
        reply = client.post("/api/search", json={"query": "xylophone", "mode": "lexical", "diversity": diversity})
        assert (reply.status_code, reply.json()["hits"]) == (200, [])


def test_the_text_around_a_passage(client: TestClient, store: Path) -> None:
    with Index.open(store, create=False) as index:
        text = index.text("long.md")
    start = text.index("needle")
    place = {"path": "long.md", "start": start, "end": start + 6, "around": 1000}
    found = client.get("/api/document", params=place).json()
    assert found["passage"] == "needle"
    assert found["before"] + found["passage"] + found["after"] == text[found["before_start"] : found["after_end"]]
    assert 0 < found["before_start"] < start - 700
    assert text[found["before_start"] - 1] == "\n"
    assert text[found["after_end"]] == "\n"
    assert found["characters"] == len(text)
    whole = client.get("/api/document", params={"path": "ops/keys.md", "start": 3, "end": 5, "around": 9999}).json()
    assert (whole["before_start"], whole["after_end"]) == (0, whole["characters"])
    beyond = client.get("/api/document", params={"path": "ops/keys.md", "start": 10**6, "end": 3}).json()
    assert (beyond["passage"], beyond["after"]) == ("", "")


@pytest.mark.parametrize(
    "path", ["../etc/passwd", "/etc/passwd", "ops/../ops/keys.md", "./ops/keys.md", "broken.docx", "a\0b", "ops", "%"]
)
def test_documents_are_addressed_by_the_index_alone(client: TestClient, path: str, store: Path) -> None:
    (store.parent / "unindexed.txt").write_text("secret")
    for name in (path, "unindexed.txt", str(store.parent / "ops/keys.md")):
        reply = client.get("/api/document", params={"path": name})
        assert reply.status_code == 404
        assert "is not indexed" in sentence(reply)


def test_lists_are_paged_and_searched(client: TestClient) -> None:
    everything = client.get("/api/documents").json()
    paths = [row["path"] for row in everything["documents"]]
    assert everything["total"] == len(paths) == 15
    page = client.get("/api/documents", params={"limit": 3, "offset": 2}).json()
    assert (page["total"], [row["path"] for row in page["documents"]]) == (15, paths[2:5])
    assert client.get("/api/documents", params={"contains": "KEYS"}).json()["total"] == 1
    assert client.get("/api/documents", params={"contains": "the LONG one"}).json()["total"] == 1
    failed = client.get("/api/failures").json()
    assert (failed["total"], failed["failures"][0]["path"]) == (1, "broken.docx")
    assert client.get("/api/failures", params={"offset": 1}).json()["failures"] == []


def test_status_is_that_of_the_index(client: TestClient, store: Path) -> None:
    found = client.get("/api/status").json()
    with Index.open(store, create=False) as index:
        expected = index.status()
    assert found.pop("server") == {"inside": 0, "capacity": 132, "refused": 0}
    assert found == expected
    assert client.get("/health").json()["status"] == "ok"


def test_collections_are_opened_when_they_are_asked_for(
    client: TestClient, store: Path, tiny_encoder_dir: Path
) -> None:
    reply = client.post("/api/search", json={"query": "zebra", "collection": "other"})
    assert reply.status_code == 404
    assert "'other'" in sentence(reply)
    write(store.parent, {"apart/zebra.txt": "A zebra has stripes."})
    with open_index(store.parent, tiny_encoder_dir, collection="other") as index:
        index.add(store.parent / "apart")
    hits = client.post("/api/search", json={"query": "zebra", "collection": "other"}).json()["hits"]
    assert [hit["path"] for hit in hits] == ["apart/zebra.txt"]
    assert client.get("/api/documents", params={"collection": "other"}).json()["total"] == 1


def test_readers_see_what_is_committed_while_they_run(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    write(tmp_path, {"one.txt": "The first note is about otters."})
    with open_index(tmp_path, tiny_encoder_dir) as index:
        index.add(tmp_path)
    with TestClient(create_app(library(tmp_path / ".ragindex")), base_url="http://localhost") as client:

        def found(query: str) -> list[str]:
            hits = client.post("/api/search", json={"query": query}).json()["hits"]
            return [hit["path"] for hit in hits if hit["scores"]["lexical"]]

        assert found("badgers") == []
        write(tmp_path, {"two.txt": "The second note is about badgers."})
        with open_index(tmp_path, tiny_encoder_dir) as writer:
            writer.add(tmp_path)
        assert found("badgers") == ["two.txt"]
        with open_index(tmp_path, tiny_encoder_dir) as writer:
            writer.remove(tmp_path / "two.txt")
        assert found("badgers") == []


def test_a_promoted_encoder_takes_over(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    write(tmp_path, {"one.txt": "The first note is about otters.", "two.txt": "The second note is about badgers."})
    with open_index(tmp_path, tiny_encoder_dir) as index:
        index.add(tmp_path)
    other = tiny_encoder(tmp_path.parent / f"{tmp_path.name}-other" / "newer", seed=1)
    with TestClient(create_app(library(tmp_path / ".ragindex")), base_url="http://localhost") as client:

        def embedded(model: str) -> int:
            return client.post("/v1/embeddings", json={"model": model, "input": "x"}).status_code

        assert client.post("/api/search", json={"query": "otters", "k": 1}).json()["hits"][0]["path"] == "one.txt"
        assert (embedded("tiny"), embedded("newer")) == (200, 404)
        with Index.open(tmp_path / ".ragindex") as writer:
            writer.promote(other)
        assert client.post("/api/search", json={"query": "otters", "k": 1}).json()["hits"][0]["path"] == "one.txt"
        assert (embedded("tiny"), embedded("newer")) == (404, 200)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "'query' is missing."),
        ({"query": " \n"}, "'query' is wrong: string should match pattern '\\S'."),
        ({"query": "x", "k": 0}, "'k' is wrong: input should be greater than or equal to 1."),
        ({"query": "x", "k": 201}, "'k' is wrong: input should be less than or equal to 200."),
        ({"query": "x", "k": "5"}, "'k' is wrong: input should be a valid integer."),
        ({"query": "x" * 9000}, "'query' is wrong: string should have at most 8192 characters."),
        ({"query": "x", "mode": "magic"}, "'mode' is wrong: input should be 'hybrid', 'dense' or 'lexical'."),
        ({"query": "x", "wat": 1}, "'wat' is not a parameter of this request."),
        ({"query": "x", "diversity": 2}, "'diversity' is wrong: input should be less than or equal to 1."),
        ({"query": "x", "filter": "size <"}, "Filter, column 7: expected a value, found the end."),
        ({"query": "x", "filter": "(" * 5000}, None),
        ({"query": "x", "instruction": "word " * 1600, "mode": "dense"}, None),
        ([], None),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(client: TestClient, body: object, message: str | None) -> None:
    reply = client.post("/api/search", json=body)
    assert reply.status_code == 400
    assert message in (None, sentence(reply))


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"[" * 100_000, b'{"query": "\xff"}', b'{"query": "\\ud800"}', b'{"query": "x", "diversity": NaN}'],
)
def test_a_body_that_is_no_request(client: TestClient, body: bytes) -> None:
    reply = client.post("/api/search", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400
    sentence(reply)


def test_a_body_of_another_type_is_refused(client: TestClient) -> None:
    reply = client.post("/api/search", content=b'{"query": "x"}', headers={"Content-Type": "text/plain"})
    assert reply.status_code == 400
    assert "Content-Type: application/json" in sentence(reply)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/api/search", 405)])
def test_wrong_addresses(client: TestClient, method: str, path: str, status: int) -> None:
    reply = client.request(method, path)
    assert reply.status_code == status
    sentence(reply)


def test_what_nobody_expected_shows_no_traceback(store: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    app = create_app(library(store))

    def broken(self: Index) -> None:
        raise ZeroDivisionError("a secret of the program")

    with TestClient(app, base_url="http://127.0.0.1") as client:
        monkeypatch.setattr(Index, "failures", broken)
        reply = client.get("/api/failures")
    assert reply.status_code == 500
    assert "secret" not in reply.text
    assert sentence(reply) == "Something went wrong in the server; its log says what."
    assert "GET /api/failures failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert "content-security-policy" in reply.headers


def test_what_documents_say_is_passed_on_as_data(client: TestClient) -> None:
    reply = client.post("/api/search", json={"query": "zeppelin hangar", "k": 1})
    assert reply.json()["hits"][0]["text"] == HOSTILE
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_a_store_without_documents(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    open_index(tmp_path, tiny_encoder_dir).close()
    with TestClient(create_app(library(tmp_path / ".ragindex")), base_url="http://127.0.0.1") as client:
        assert client.post("/api/search", json={"query": "x", "mode": "lexical"}).json()["hits"] == []
        reply = client.post("/api/search", json={"query": "x"})
        assert reply.status_code == 400
        assert "ragindex index" in sentence(reply)

"""Who may use the server: names, origins, tokens; and how large and how slow a request may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from server_kit import fill, library, sentence
from starlette.testclient import TestClient

from ragindex.errors import UsageError
from ragindex.listening import address_of, is_loopback
from ragindex.server import Access, Limits, create_app, host_name

TOKEN = "correct-horse-battery-staple"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_dir: Path) -> Path:
    return fill(tmp_path_factory.mktemp("documents"), tiny_encoder_dir)


@pytest.fixture(scope="module")
def client(store: Path) -> Iterator[TestClient]:
    with TestClient(create_app(library(store)), base_url="http://127.0.0.1:8420") as client:
        yield client


@pytest.fixture(scope="module")
def guarded(store: Path) -> Iterator[TestClient]:
    access = Access(token=TOKEN, loopback=False, hosts=frozenset({"docs.example.com"}))
    with TestClient(create_app(library(store), access=access), base_url="http://192.0.2.7:8420") as client:
        yield client


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9000", "localhost", "LOCALHOST:1", "[::1]:8420", "127.1.2.3"])
def test_own_names_are_served(client: TestClient, host: str) -> None:
    assert client.get("/api/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "192.0.2.7",
        "evil.example:8420",
        "",
        "[::1",
        "a b",
    ],
)
@pytest.mark.parametrize("path", ["/", "/health", "/api/status", "/page/app.js"])
def test_other_names_are_refused(client: TestClient, host: str, path: str) -> None:
    reply = client.get(path, headers={"Host": host})
    assert reply.status_code == 403
    assert "--allow-host" in sentence(reply)


def test_off_loopback_addresses_and_given_names_are_served(guarded: TestClient) -> None:
    for host, status in (
        ("192.0.2.7", 200),
        ("docs.example.com:443", 200),
        ("DOCS.example.com", 200),
        ("evil.example", 403),
    ):
        assert guarded.get("/health", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://evil.example:8420",
        "null",
        "http://127.0.0.1:3000",
        "http://localhost:8420",
        "https://127.0.0.1:8420.evil.example",
        "file://",
        "http://[::1",
        "",
    ],
)
def test_pages_of_other_origins_are_refused(client: TestClient, origin: str) -> None:
    for reply in (
        client.post("/api/search", json={"query": "x"}, headers={"Origin": origin}),
        client.get("/api/status", headers={"Origin": origin}),
    ):
        assert reply.status_code == 403
        assert "another site" in sentence(reply)
        assert "access-control-allow-origin" not in reply.headers


def test_the_page_itself_is_no_other_origin(client: TestClient) -> None:
    own = {"Origin": "http://127.0.0.1:8420", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    assert client.get("/api/status", headers=own).status_code == 200
    proxied = {"Host": "localhost", "Origin": "https://localhost"}
    assert client.get("/api/status", headers=proxied).status_code == 200


def test_browsers_that_say_where_a_request_comes_from_are_believed(client: TestClient) -> None:
    for site in ("cross-site", "same-site"):
        hidden = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
        assert client.get("/api/status", headers=hidden).status_code == 403
        assert client.get("/", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \xff"],
)
def test_without_the_token_nothing_is_told(guarded: TestClient, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    for method, path in (
        ("POST", "/api/search"),
        ("GET", "/api/status"),
        ("GET", "/api/document?path=hostile.txt"),
        ("GET", "/v1/models"),
        ("POST", "/v1/embeddings"),
        ("GET", "/openapi.json"),
        ("GET", "/nothing"),
        ("GET", "/page/../api/status"),
    ):
        reply = guarded.request(method, path, headers=headers)
        assert reply.status_code == 401, path
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.json()["error"]["code"] == "invalid_api_key"
        assert TOKEN not in sentence(reply)


def test_with_the_token_everything_is(guarded: TestClient) -> None:
    headers = {"Authorization": f"bearer {TOKEN}"}
    assert guarded.get("/api/status", headers=headers).status_code == 200
    assert guarded.post("/api/search", json={"query": "kettle"}, headers=headers).json()["hits"]


def test_the_page_and_the_health_check_need_no_token(guarded: TestClient) -> None:
    assert guarded.get("/health").status_code == 200
    assert guarded.get("/").status_code == 200


def test_a_token_also_holds_on_loopback(store: Path) -> None:
    with TestClient(create_app(library(store), access=Access(token=TOKEN)), base_url="http://127.0.0.1") as client:
        assert client.get("/api/status").status_code == 401
        assert client.get("/api/status", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_off_loopback_there_is_no_server_without_a_token() -> None:
    with pytest.raises(UsageError, match="needs a token; give --token-file"):
        Access(loopback=False)


@pytest.mark.parametrize("token", ["", "short", "fifteen letters", "ключ, который длинный", "has a\nline break in it"])
def test_a_token_that_could_be_guessed_or_not_sent_is_refused(token: str) -> None:
    with pytest.raises(UsageError, match="at least 16 printable ASCII characters"):
        Access(token=token)


def test_every_response_binds_the_browser(client: TestClient) -> None:
    for reply in (
        client.get("/"),
        client.get("/nothing"),
        client.get("/api/status"),
        client.get("/", headers={"Host": "x"}),
    ):
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] in ("no-store", "no-cache")
        assert "server" not in reply.headers


@pytest.mark.parametrize(
    "name",
    ["../security.py", "..%2Fsecurity.py", "%2e%2e/security.py", "..\\security.py", "index.html%00", "", ".", "app.py"],
)
def test_the_page_has_no_file_but_its_own(client: TestClient, name: str) -> None:
    reply = client.get(f"/page/{name}")
    assert reply.status_code == 404
    sentence(reply)


def test_bodies_are_bounded(store: Path) -> None:
    app = create_app(library(store), limits=Limits(body_bytes=1_000))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.post("/api/search", json={"query": "x" * 900}).status_code == 200
        told = client.post("/api/search", json={"query": "x" * 1_000})
        untold = client.post("/api/search", content=iter([b" " * 600] * 3), headers=JSON)
        for reply in (told, untold):
            assert reply.status_code == 413
            assert "1,000 bytes" in sentence(reply)


def test_a_body_that_does_not_arrive_is_given_up(store: Path) -> None:
    app = create_app(library(store), limits=Limits(body_seconds=0.2))

    async def slowly(never: asyncio.Event) -> AsyncIterator[bytes]:
        yield b'{"query":'
        await never.wait()

    async def sent() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client:
            reply = await client.post("/api/search", content=slowly(asyncio.Event()), headers=JSON)
        await app.state.desk.close()
        return reply

    reply = asyncio.run(sent())
    assert reply.status_code == 408
    sentence(reply)


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)]
)
def test_loopback_is_told_from_the_rest(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_an_unknown_host_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="no name or address"):
        is_loopback("no.such.name.invalid")


def test_names_are_taken_out_of_hosts() -> None:
    found = [host_name(host) for host in ("Docs.Example.com:8443", "docs.example.com.", "[::1]:80", "a:b:c", "")]
    assert found == ["docs.example.com", "docs.example.com", "::1", "a", ""]


def test_addresses_are_written_as_urls() -> None:
    assert address_of("127.0.0.1", 1) == "http://127.0.0.1:1"
    assert address_of("::1", 1) == "http://[::1]:1"

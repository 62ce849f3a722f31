"""The search page: its files keep the promises of their policy, and in a browser it does what a reader expects."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from server_kit import HEBREW, HOSTILE, fill, library, running, until
from starlette.testclient import TestClient

import ragindex.server
from ragindex.server import Access, create_app

FOLDER = Path(ragindex.server.__file__).parent / "page"
FILES = sorted(FOLDER.iterdir())
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TOKEN = "correct-horse-battery-staple"


def test_the_files_are_served_as_what_they_are(store: Path) -> None:
    with TestClient(create_app(library(store)), base_url="http://127.0.0.1") as client:
        page = client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        for name in re.findall(r'(?:href|src)="(/page/[^"]+)"', page.text):
            reply = client.get(name)
            assert reply.status_code == 200
            assert reply.content == (FOLDER / name.removeprefix("/page/")).read_bytes()
            again = client.get(name, headers={"If-None-Match": reply.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        assert client.get("/page/app.js").headers["content-type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_is_fetched_from_elsewhere_and_nothing_is_parsed_as_html(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert "//" not in re.sub(r"(^|\s)//.*", "", text), "an address of another host"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text)
    assert not re.search(r"<[^>]*\s(?:style|on\w+)=", text), "an inline style or handler"
    if file.suffix == ".js":
        for name in re.findall(r'from "\./([^"]+)"', text):
            assert (FOLDER / name).is_file()


def test_ids_are_unique_and_labels_have_their_fields() -> None:
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    for name in re.findall(r'\b(?:for|aria-controls|aria-labelledby|aria-describedby)="([^"]+)"', html):
        assert name in ids
    for script in FOLDER.glob("*.js"):
        for name in re.findall(r'byId\("([^"]+)"\)', script.read_text(encoding="utf-8")):
            assert name in ids, f"{script.name} wants #{name}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_dir: Path) -> Path:
    return fill(tmp_path_factory.mktemp("documents"), tiny_encoder_dir)


@pytest.fixture(scope="module")
def url(store: Path) -> Iterator[str]:
    with running(store) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed here")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed here")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that must end without an error, a dialog or a breach of the policy."""
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    page = context.new_page()
    page.set_default_timeout(60_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.on(
        "console", lambda message: wrong.append(message.text) if not message.text.startswith("Failed to load") else None
    )
    yield page
    context.close()
    assert wrong == []


def ready(page: Any) -> None:
    page.wait_for_selector("#hits > li")


def test_a_question_is_answered_with_marked_words_pages_and_lines(page: Any, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("#welcome p")
    assert "15 documents" in page.inner_text("#welcome")
    page.keyboard.type("rotate the signing key")  # the box has the focus
    page.keyboard.press("Enter")
    ready(page)
    assert "10 passages in" in page.inner_text("#status")
    assert page.get_attribute("#status", "aria-live") == "polite"
    first = page.locator("#hits > li").first
    assert "line" in first.locator(".where").inner_text()
    assert {mark.lower() for mark in first.locator("mark").all_inner_texts()} >= {"rotate", "signing", "key"}
    page.wait_for_url("**q=rotate**")
    assert page.title() == "rotate the signing key – ragindex"


def test_keys_move_open_and_close(page: Any, url: str) -> None:
    page.goto(f"{url}/?q=rotate+the+signing+key")
    ready(page)

    def focused() -> str:
        return page.evaluate("document.activeElement.id")

    page.keyboard.press("/")
    assert focused() == "query"
    page.keyboard.press("ArrowDown")
    assert focused() == "hit-1"
    page.keyboard.press("ArrowDown")
    assert focused() == "hit-2"
    page.keyboard.press("Enter")
    page.wait_for_selector("#passage[open] mark.passage")
    page.wait_for_url("**doc=**")
    page.keyboard.press("Escape")
    page.wait_for_selector("#passage:not([open])", state="attached")
    page.wait_for_url(lambda address: "doc=" not in address)  # the way back in the history takes its time
    until(lambda: focused() == "hit-2")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert focused() == "query"


def test_a_passage_opens_in_its_document_and_more_of_it_comes(page: Any, url: str) -> None:
    page.goto(f"{url}/?q=needle&mode=lexical&k=1")
    ready(page)
    page.click("#hit-1")
    page.wait_for_selector("#passage mark.passage")
    marked = "\n".join(page.locator("#passage mark.passage").all_text_contents())
    assert "needle" in marked
    shown = len(page.inner_text("#passage-text"))
    page.click("#passage-before")
    until(lambda: page.evaluate(f"document.getElementById('passage-text').innerText.length > {shown} * 2"))
    assert "\n".join(page.locator("#passage mark.passage").all_text_contents()) == marked
    assert page.locator("#passage mark.passage").first.is_visible()
    address = page.url
    page.goto("about:blank")
    page.goto(address)  # the view can be linked to
    page.wait_for_selector("#passage[open] mark.passage")


def test_modes_filters_and_the_way_back_live_in_the_address(page: Any, url: str) -> None:
    page.goto(f"{url}/?q=kettle")
    ready(page)
    page.check("[name=mode][value=lexical]")
    page.wait_for_url("**mode=lexical**")
    page.click("#filters-toggle")
    page.fill("[name=within]", "doc0")
    page.keyboard.press("Enter")
    page.wait_for_url("**within=doc0**")
    until(
        lambda: page.evaluate(
            "[...document.querySelectorAll('#hits .path')].every((path) => path.textContent.includes('doc0'))"
        )
    )
    assert page.inner_text("#filters-count") == "(1)"
    page.go_back()
    until(lambda: page.evaluate("document.querySelector('[name=within]').value === ''"))
    page.go_back()
    until(lambda: page.evaluate("document.querySelector('[name=mode]:checked').value === 'hybrid'"))


def test_what_documents_say_stays_text(page: Any, url: str) -> None:
    page.goto(f"{url}/?q=zeppelin+hangar&k=1&explain=1")
    ready(page)
    assert page.inner_text(".excerpt .text") == HOSTILE
    assert page.locator("#hits img").count() == 0
    page.click("#hit-1")
    page.wait_for_selector("#passage mark.passage")
    assert page.inner_text("#passage-text") == HOSTILE
    page.goto(f"{url}/?q={quote(HOSTILE)}")
    ready(page)
    assert page.input_value("#query") == HOSTILE
    assert page.locator("img").count() == 0


def test_text_from_right_to_left_reads_so(page: Any, url: str) -> None:
    page.goto(f"{url}/?q=zeppelinrtl&mode=lexical&k=1")
    ready(page)
    line = page.locator(".excerpt .textline").first
    assert line.inner_text() == HEBREW
    assert line.evaluate("(element) => getComputedStyle(element).direction") == "rtl"


def test_scores_are_explained(page: Any, url: str) -> None:
    page.goto(f"{url}/?q=rotate+the+signing+key&k=2")
    ready(page)
    assert page.locator(".why").count() == 0
    page.check("#explain")
    page.wait_for_selector(".why")
    told = page.locator(".why").first.inner_text()
    assert "place 1" in told
    assert "Words found:" in told
    page.wait_for_url("**explain=1**")


def test_what_is_indexed_and_what_is_not(page: Any, url: str) -> None:
    page.goto(url)
    page.click("#coverage-open")
    page.wait_for_selector(".documents li")
    body = page.inner_text("#coverage-body")
    assert "1 file could not be read" in body
    assert "broken.docx" in body
    page.fill("#documents-filter", "keys")
    until(lambda: page.evaluate("document.querySelectorAll('.documents li').length === 1"))
    page.click(".documents .open")
    page.wait_for_selector("#passage[open]")
    until(lambda: page.evaluate("document.getElementById('passage-text').innerText.includes('signing key')"))


def test_no_hit_an_error_and_a_lost_server_are_told(page: Any, store: Path) -> None:
    with running(store) as url:
        page.goto(f"{url}/?q=xylophone&mode=lexical")
        page.wait_for_selector(".advice")
        assert page.inner_text("#status") == "No passage found."
        page.goto(f"{url}/?q=kettle&filter=size+%3C")
        page.wait_for_selector("#trouble .trouble")
        assert "Filter, column" in page.inner_text("#trouble")
        page.click("#filters-clear")
        ready(page)
        page.context.set_offline(True)
        page.fill("#query", "another")
        page.keyboard.press("Enter")
        page.wait_for_selector("#trouble .trouble")
        assert "does not answer" in page.inner_text("#trouble")
    page.goto("about:blank")


def test_the_token_is_asked_for_and_kept_for_the_tab(page: Any, store: Path) -> None:
    with running(store, access=Access(token=TOKEN)) as url:
        page.goto(f"{url}/?q=kettle")
        page.wait_for_selector("#token[open]")
        page.keyboard.press("Escape")
        page.wait_for_selector("#trouble .trouble")
        assert "Without its token" in page.inner_text("#trouble")
        page.click("#trouble button")
        for attempt in ("wrong", TOKEN):
            page.wait_for_selector("#token[open]")
            page.fill("#token-value", attempt)
            page.keyboard.press("Enter")
        ready(page)
        page.reload()
        ready(page)
        assert page.locator("#token[open]").count() == 0
        page.goto("about:blank")


@pytest.mark.parametrize("width", [320, 1000])
def test_nothing_is_wider_than_the_screen(page: Any, url: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    for query in ("quagga", "zeppelin"):
        page.goto(f"{url}/?q={query}&explain=1&within=o")
        ready(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.click("#hit-1")
    page.wait_for_selector("#passage mark.passage")
    assert page.evaluate("document.getElementById('passage-body').scrollWidth") <= width


def test_every_field_and_button_has_a_name(page: Any, url: str) -> None:
    page.goto(f"{url}/?q=kettle&explain=1&k=11")
    ready(page)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, meter, dialog")].filter((element) =>
            !(element.textContent.trim() || element.getAttribute("aria-label") || element.labels?.length
              || element.getAttribute("aria-labelledby"))).map((element) => element.outerHTML)"""
    )
    assert nameless == []
    assert page.locator("main").count() == 1
    assert page.locator("search, [role=search]").count() == 1

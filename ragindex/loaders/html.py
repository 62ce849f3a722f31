"""HTML: what a reader sees, as blocks under their headings; scripts, navigation and hidden parts are left out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ragindex.loaders.decode import decode
from ragindex.loaders.draft import Draft, Outline, Source, TextBuilder, check_length
from ragindex.loaders.html_lines import LineFinder
from ragindex.loaders.words import words
from ragindex.types import BlockKind, MetadataValue

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

__all__ = ["parse", "read_html"]

_DROPPED = words(
    "script style noscript template nav iframe object embed svg math canvas audio video head select datalist dialog"
)
_BREAKING = words(
    "html body p div section article main header footer aside address blockquote figure figcaption details summary",
    "dl dt dd ul ol li form fieldset legend hr pre table caption thead tbody tfoot tr h1 h2 h3 h4 h5 h6 center menu",
    "hgroup search",
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_DECLARED = re.compile(
    rb"""(?:charset\s{0,8}=|encoding\s{0,8}=)\s{0,8}["']?\s{0,8}([A-Za-z0-9_:.-]{1,40})""", re.IGNORECASE
)
_HIDDEN_STYLE = re.compile(r"display\s{0,8}:\s{0,8}none|visibility\s{0,8}:\s{0,8}hidden", re.IGNORECASE)


def parse(source: Source) -> Draft:
    """The title is `<title>`, else the first `<h1>`; `description` and `author` meta tags become metadata."""
    declared = _DECLARED.search(source.data[:4096])
    decoded = decode(source.data, declared=declared.group(1).decode("ascii") if declared else "")
    check_length(len(decoded.text), source.limits)
    return read_html(decoded.text, source, encoding=decoded.encoding)


def read_html(text: str, source: Source, *, encoding: str = "") -> Draft:
    """The same for markup that is text already: an e-mail's body, a chapter."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(text)
    reader = _Reader(TextBuilder(source.limits), LineFinder(text))
    root = tree.root
    if root is not None:
        reader.read(root)
    metadata: dict[str, MetadataValue] = {"encoding": encoding} if encoding else {}
    for node in tree.css("meta[name][content]"):
        name = (node.attributes.get("name") or "").lower()
        if name in ("author", "description"):
            metadata[name] = " ".join((node.attributes.get("content") or "").split())
    named = tree.css_first("title")
    title = " ".join(named.text().split()) if named is not None else ""
    return reader.builder.finish(title=title or reader.first_heading, metadata=metadata)


@dataclass
class _Reader:
    """Collects the text between two block borders, then hands it to the builder as one block."""

    builder: TextBuilder
    lines: LineFinder
    outline: Outline = field(default_factory=Outline)
    first_heading: str = ""
    _pieces: list[str] = field(default_factory=list)
    _rows: list[str] = field(default_factory=list)
    _kind: BlockKind = "prose"
    _preformatted: int = 0
    _tables: int = 0
    _lists: list[str] = field(default_factory=list)

    def read(self, root: LexborNode) -> None:
        """Walk the tree with an own stack: documents nest deeper than Python recurses."""
        node: LexborNode | None = root
        while node is not None:
            child = node.child if self._enter(node) else None
            if child is not None:
                node = child
                continue
            while node is not None:
                if node.is_element_node:
                    self._leave(node)
                # Nodes compare by their markup, which costs a serialisation; identities cost nothing.
                if node.mem_id == root.mem_id:
                    node = None
                    break
                following = node.next
                if following is not None:
                    node = following
                    break
                node = node.parent
        self._flush()

    def _enter(self, node: LexborNode) -> bool:
        """Whether to go on to the node's children."""
        if node.is_text_node:
            self._pieces.append(node.text_content or "")
            return False
        if not node.is_element_node:
            return True
        tag = node.tag or ""
        if tag in _DROPPED or _is_hidden(node):
            return False
        if tag == "br":
            self._pieces.append("\n" if self._preformatted else "\0")
        elif tag == "img":
            self._pieces.append(f" {node.attributes.get('alt') or ''} ")
        elif tag in ("td", "th") and self._tables:
            if self._pieces:
                self._pieces.append(" | ")
        elif tag in _BREAKING:
            self._border(tag)
            self._open(tag)
        return True

    def _open(self, tag: str) -> None:
        if tag == "pre":
            self._preformatted += 1
        elif tag == "table":
            self._tables += 1
        elif tag in ("ul", "ol", "menu", "dl"):
            self._lists.append(tag)
        elif tag == "li" and self._lists and not self._tables:
            self._pieces.append("- ")

    def _leave(self, node: LexborNode) -> None:
        tag = node.tag or ""
        if tag not in _BREAKING or tag in _DROPPED or _is_hidden(node):
            return
        if tag in _HEADINGS and not self._tables:
            self._heading(_HEADINGS[tag])
            return
        self._border(tag)
        if tag == "pre":
            self._preformatted -= 1
        elif tag == "table":
            self._tables -= 1
            if not self._tables:
                self._flush()
        elif tag in ("ul", "ol", "menu", "dl") and self._lists:
            self._lists.pop()
            if not self._lists:
                self._flush()

    def _border(self, tag: str) -> None:
        """A block element begins or ends: in a table only rows break, in a list each element is a line of the block."""
        if self._tables:
            if tag in ("tr", "caption", "table"):
                self._row("table")
            elif self._pieces and not self._pieces[-1].endswith((" ", "\0")):
                self._pieces.append(" ")
        elif self._preformatted:
            if tag == "pre":
                self._flush("code")
        elif self._lists:
            if self._pieces != ["- "]:
                self._row("list")
        else:
            self._flush()

    def _row(self, kind: BlockKind) -> None:
        text = self._take()
        if text and text != "-":
            self._rows.append(text)
            self._kind = kind

    def _flush(self, kind: BlockKind = "prose") -> None:
        text = self._take(raw=kind == "code")
        if self._rows and text:
            self._rows.append(text)
        elif text:
            self._kind = kind
        text = "\n".join(self._rows) if self._rows else text
        self._rows = []
        if text:
            self.builder.add(text, self._kind, self.outline.path, lines=self._source_lines(text))

    def _source_lines(self, text: str) -> list[int]:
        rows = text.split("\n")
        if self._kind == "code":
            first = self.lines.line_of(text)
            return [first + offset for offset in range(len(rows))]
        return [self.lines.line_of(row) for row in rows]

    def _heading(self, level: int) -> None:
        text = self._take().replace("\n", " ")
        if self._rows:
            self._flush()
        if not text:
            return
        above = self.outline.enter(level, text)
        self.builder.add(text, "heading", above, lines=[self.lines.line_of(text)])
        if level == 1 and not self.first_heading:
            self.first_heading = text

    def _take(self, *, raw: bool = False) -> str:
        """The collected text with white space collapsed; a NUL stands for a line break that was asked for."""
        joined = "".join(self._pieces)
        self._pieces = []
        if raw:
            return joined.replace("\0", "\n").strip("\n") if joined.strip() else ""
        lines = (" ".join(line.split()) for line in joined.split("\0"))
        return "\n".join(line for line in lines if line)


def _is_hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    if not attributes:
        return False
    if "hidden" in attributes or attributes.get("aria-hidden") == "true":
        return True
    return _HIDDEN_STYLE.search((attributes.get("style") or "")[:2000]) is not None

"""EPUB: the chapters of the spine in reading order, each read as HTML."""

from __future__ import annotations

import posixpath
import zipfile
from dataclasses import dataclass
from urllib.parse import unquote
from xml.etree import ElementTree

from ragindex.errors import LoadError
from ragindex.loaders.archive import open_archive
from ragindex.loaders.decode import decode
from ragindex.loaders.draft import Draft, Source, TextBuilder
from ragindex.loaders.html import read_html
from ragindex.types import MetadataValue

__all__ = ["parse"]

_CHAPTERS = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")


@dataclass(frozen=True, slots=True)
class _Package:
    chapters: tuple[str, ...]
    title: str
    author: str
    published: str


def parse(source: Source) -> Draft:
    """The title is the book's; metadata: `author`, `published`, `chapters`."""
    builder = TextBuilder(source.limits)
    with open_archive(source.data, source.limits) as archive:
        package = _package(archive)
        read = 0
        for name in package.chapters:
            try:
                text = decode(archive.read(name)).text
            except KeyError:
                # Spines that name a missing chapter are common; the rest of the book is still worth having.
                continue
            chapter = read_html(text, source)
            builder.extend(chapter, () if _begins_with_heading(chapter) else _named(chapter.title, package.title))
            read += 1
    if package.chapters and not read:
        raise LoadError(f"none of its {len(package.chapters)} chapters is in the archive")
    metadata: dict[str, MetadataValue] = {"author": package.author, "published": package.published, "chapters": read}
    return builder.finish(title=package.title, metadata=metadata)


def _begins_with_heading(chapter: Draft) -> bool:
    return bool(chapter.blocks) and chapter.blocks[0].kind == "heading"


def _named(title: str, book: str) -> tuple[str, ...]:
    """Chapters without a heading of their own are known by their `<title>`, unless every chapter repeats the book's."""
    return (title,) if title and title != book else ()


def _package(archive: zipfile.ZipFile) -> _Package:
    container = _xml(archive, "META-INF/container.xml")
    rootfile = container.find(".//{*}rootfile")
    name = rootfile.get("full-path") if rootfile is not None else None
    if not name:
        raise LoadError("not an EPUB: its container names no package")
    package = _xml(archive, name)
    items = {item.get("id"): item for item in package.iterfind(".//{*}manifest/{*}item")}
    base = posixpath.dirname(name)
    chapters = []
    for reference in package.iterfind(".//{*}spine/{*}itemref"):
        item = items.get(reference.get("idref"))
        if item is not None and item.get("media-type") in _CHAPTERS and reference.get("linear") != "no":
            target = unquote((item.get("href") or "").split("#", 1)[0])
            chapters.append(posixpath.normpath(posixpath.join(base, target)))
    return _Package(tuple(chapters), _dublin(package, "title"), _dublin(package, "creator"), _dublin(package, "date"))


def _dublin(package: ElementTree.Element, field: str) -> str:
    found = package.find(f".//{{http://purl.org/dc/elements/1.1/}}{field}")
    return " ".join((found.text or "").split()) if found is not None else ""


def _xml(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    try:
        data = archive.read(name)
    except KeyError as error:
        raise LoadError(f"not an EPUB: {name} is missing") from error
    if "<!ENTITY" in decode(data).text:
        raise LoadError("XML that declares entities, which may be an entity bomb")
    try:
        return ElementTree.fromstring(data)  # noqa: S314 - entity declarations were refused above
    except ElementTree.ParseError as error:
        raise LoadError(f"broken XML in {name}") from error

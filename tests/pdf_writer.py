"""Writes small valid PDF files by hand, so that tests need no PDF library to make their fixtures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """A line of text at a distance from the page's top, in points."""

    text: str
    top: float
    size: float = 11.0


def write_pdf(pages: list[list[Line]], *, title: str = "", author: str = "", encrypt: bool = False) -> bytes:
    """A PDF with one text object per line; an empty list is a page without text."""
    objects: dict[int, bytes] = {
        3: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"
    }
    kids = []
    number = 10
    for page in pages:
        stream = b"\n".join(_draw(line) for line in page)
        objects[number] = b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream)
        objects[number + 1] = (
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % number
        )
        kids.append(b"%d 0 R" % (number + 1))
        number += 2
    objects[1] = b"<< /Type /Catalog /Pages 2 0 R >>"
    objects[2] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), len(kids))
    objects[4] = b"<< /Title (%s) /Author (%s) >>" % (_escape(title), _escape(author))
    trailer = b"/Root 1 0 R /Info 4 0 R"
    if encrypt:
        # Keys that belong to no password: a reader must ask for one.
        objects[5] = b"<< /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >>" % (b"5a" * 32, b"a5" * 32)
        trailer += b" /Encrypt 5 0 R /ID [<00112233445566778899aabbccddeeff> <00112233445566778899aabbccddeeff>]"
    return _assemble(objects, trailer)


def _assemble(objects: dict[int, bytes], trailer: bytes) -> bytes:
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = {}
    for number in sorted(objects):
        offsets[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, objects[number])
    start, size = len(out), max(objects) + 1
    out += b"xref\n0 %d\n" % size
    for number in range(size):
        entry = (offsets[number], 0, b"n") if number in offsets else (0, 65535, b"f")
        out += b"%010d %05d %s \n" % entry
    out += b"trailer\n<< /Size %d %s >>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, start)
    return bytes(out)


def _draw(line: Line) -> bytes:
    return b"BT /F1 %.1f Tf 72 %.1f Td (%s) Tj ET" % (line.size, 842 - line.top, _escape(line.text))


def _escape(text: str) -> bytes:
    return text.encode("cp1252").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")

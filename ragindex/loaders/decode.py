"""Bytes to text: byte order marks, UTF-8, UTF-16 without a mark, then a guess among the 8-bit encodings."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from ragindex.errors import LoadError

__all__ = ["Decoded", "clean", "decode"]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE = 1 << 16
# Tab, line feed, form feed, carriage return, backspace and escape occur in honest text (terminal logs, man pages).
_CONTROLS = bytes(set(range(32)) - {8, 9, 10, 12, 13, 27}) + b"\x7f"
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x07\x0b\x0e-\x1a\x1c-\x1f\x7f\ufffe\uffff]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_WESTERN = re.compile(r"[À-ÖØ-öø-ÿŠŽšžŸŒœ‘’‚“”„–—…•«»€§°ºª¡¿£©®\xa0]")


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text whose lines end in a line feed, and the name of the encoding it was read in."""

    text: str
    encoding: str


def decode(data: bytes, *, declared: str = "") -> Decoded:
    """Decode a text file. `declared` is an encoding that the content names (HTML, XML); it is tried after UTF-8 fails.

    Raises LoadError("binary content") for bytes that are no text in any encoding.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return Decoded(clean(data[len(mark) :].decode(encoding, errors="replace")), encoding)
    if b"\0" in data[:_SAMPLE]:
        wide = _utf16(data)
        if wide is not None:
            return wide
    _refuse_binary(data)
    for encoding in ("utf-8", declared):
        try:
            if encoding:
                return Decoded(clean(data.decode(encoding)), codecs.lookup(encoding).name)
        except (UnicodeDecodeError, LookupError):
            continue
    return _guess(data)


def clean(text: str) -> str:
    """Line ends become line feeds; NUL and lone surrogates become U+FFFD so that every store accepts the text."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = _SURROGATES.sub("\ufffd", text)
    return text


def _refuse_binary(data: bytes) -> None:
    sample = data[:_SAMPLE]
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    if controls * 100 > len(sample) or data.count(0) * 1000 > len(data):
        raise LoadError("binary content")


def _utf16(data: bytes) -> Decoded | None:
    """UTF-16 without a mark: the NULs of its ASCII characters all lie on the same side of each pair of bytes."""
    sample = data[: _SAMPLE & ~1]
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    encoding = "utf-16-le" if odd >= even else "utf-16-be"
    if len(data) < 4 or len(data) % 2 or min(even, odd) * 20 > max(even, odd):
        return None
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    if len(_CONTROL_CHARACTERS.findall(text[:_SAMPLE])) * 100 > min(len(text), _SAMPLE):
        return None
    return Decoded(clean(text), encoding)


def _guess(data: bytes) -> Decoded:
    text = data.decode("utf-8", errors="replace")
    wide = sum(1 for character in text if character > "\x7f")
    broken = text.count("\ufffd")
    # One bad byte in a UTF-8 log must not turn every other character of it into mojibake.
    if wide - broken > 3 * broken:
        return Decoded(clean(text), "utf-8")
    western = data.decode("cp1252", errors="replace")
    if _looks_western(western):
        return Decoded(clean(western), "cp1252")
    from charset_normalizer import from_bytes

    best = from_bytes(_densest(data)).best()
    if best is not None:
        try:
            return Decoded(clean(data.decode(best.encoding)), codecs.lookup(best.encoding).name)
        except (UnicodeDecodeError, LookupError):
            pass
    return Decoded(clean(western), "cp1252")


def _looks_western(text: str) -> bool:
    """Mostly ASCII letters, and what is not ASCII is what Western European languages write."""
    sample = text[:_SAMPLE]
    wide = [character for character in sample if character > "\x7f"]
    letters = sum(1 for character in sample if character.isalpha())
    wide_letters = sum(1 for character in wide if character.isalpha())
    western = sum(1 for character in wide if _WESTERN.match(character))
    return western * 20 >= len(wide) * 19 and wide_letters * 3 <= max(letters, 3)


def _densest(data: bytes) -> bytes:
    """A sample that begins at the first line with a byte that is not ASCII: a long English preamble says nothing."""
    found = re.search(rb"[\x80-\xff]", data)
    start = data.rfind(b"\n", 0, found.start()) + 1 if found else 0
    return data[start : start + _SAMPLE // 4]

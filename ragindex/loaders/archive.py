"""Opens zip-based formats with care: bombs, encrypted members and XML entity tricks are refused before parsing."""

from __future__ import annotations

import zipfile
from io import BytesIO

from ragindex.config import Limits
from ragindex.errors import LoadError

__all__ = ["office_archive", "open_archive"]

_HARMLESS = 10_000_000
_MOST_MEMBERS = 100_000
_PIECE = 1 << 20
_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# Office writers never declare a document type; entity bombs and file inclusion need one. UTF-16 would hide it.
_DECLARATIONS = tuple(
    text.encode(encoding) for text in ("<!DOCTYPE", "<!ENTITY") for encoding in ("ascii", "utf-16-le", "utf-16-be")
)


def open_archive(data: bytes, limits: Limits) -> zipfile.ZipFile:
    """The archive, after its central directory was found to be plausible. Raises LoadError otherwise.

    Members never expand beyond the size that the directory declares (zipfile stops there): their sum bounds the work.
    """
    try:
        archive = zipfile.ZipFile(BytesIO(data))
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise LoadError("not a zip archive, or a truncated one") from error
    members = archive.infolist()
    if len(members) > _MOST_MEMBERS:
        raise LoadError(f"archive of {len(members)} members; limit {_MOST_MEMBERS}")
    unpacked = sum(member.file_size for member in members)
    if unpacked > _HARMLESS and unpacked > limits.expansion * len(data):
        raise LoadError(f"archive expands {unpacked // max(1, len(data))} times; limit {limits.expansion}")
    if any(member.flag_bits & 1 for member in members):
        raise LoadError("password-protected")
    return archive


def office_archive(data: bytes, limits: Limits) -> None:
    """Check a docx, pptx or xlsx file: everything `open_archive` checks, and no document type in any XML part."""
    if data.startswith(_COMPOUND):
        raise LoadError(
            "password-protected, or in the old binary Office format; save it without a password as a new one"
        )
    with open_archive(data, limits) as archive:
        for member in archive.infolist():
            if member.filename.lower().endswith((".xml", ".rels", ".vml")):
                _refuse_declarations(archive, member)


def _refuse_declarations(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    overlap = b""
    with archive.open(member) as part:
        while piece := part.read(_PIECE):
            window = overlap + piece
            if any(declaration in window for declaration in _DECLARATIONS):
                raise LoadError("XML with a document type declaration, which may be an entity bomb")
            overlap = piece[-32:]

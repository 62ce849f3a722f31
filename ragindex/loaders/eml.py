"""E-mail: subject, sender and date, then the plain text (else the HTML) and the messages that are attached to it."""

from __future__ import annotations

import email
import email.policy
import re
from datetime import UTC
from email.message import EmailMessage, Message, MIMEPart
from email.utils import parsedate_to_datetime
from typing import Any, cast

from ragindex.loaders.decode import decode
from ragindex.loaders.draft import Draft, Source, TextBuilder, blocks_between
from ragindex.loaders.html import read_html
from ragindex.loaders.text import paragraph_cuts
from ragindex.types import MetadataValue

__all__ = ["parse"]

_DEEPEST = 5
_SHOWN = ("From", "To", "Cc", "Date", "Subject")


def parse(source: Source) -> Draft:
    """The title is the subject; metadata: `from`, `to`, `date` (ISO 8601, UTC) and `attachments` (names only)."""
    message = email.message_from_bytes(source.data, policy=email.policy.default)
    builder = TextBuilder(source.limits)
    attachments: list[str] = []
    _read(message, builder, source, (), attachments)
    metadata: dict[str, MetadataValue] = {
        "from": _header(message, "From"),
        "to": _header(message, "To"),
        "date": _date(message),
        "attachments": ", ".join(attachments),
    }
    return builder.finish(title=_header(message, "Subject"), metadata=metadata)


def _read(
    message: EmailMessage, builder: TextBuilder, source: Source, heading: tuple[str, ...], attachments: list[str]
) -> None:
    shown = [(name, _header(message, name)) for name in _SHOWN]
    builder.add("\n".join(f"{name}: {value}" for name, value in shown if value), "table", heading)
    body = message.get_body(preferencelist=("plain", "html"))
    if body is not None:
        _body(body, builder, source, heading)
    for part in message.walk():
        if part is message or not isinstance(part, EmailMessage):
            continue
        if part.get_content_type() == "message/rfc822":
            for inner in part.iter_parts() if len(heading) < _DEEPEST else ():
                attached = cast("EmailMessage", inner)
                _read(attached, builder, source, (*heading, _header(attached, "Subject") or "message"), attachments)
        elif part.get_filename():
            attachments.append(str(part.get_filename()))


def _body(part: MIMEPart, builder: TextBuilder, source: Source, heading: tuple[str, ...]) -> None:
    text = _text(part)
    if part.get_content_subtype() == "html":
        builder.extend(read_html(text, source), heading)
        return
    lines = text.split("\n")
    for block in blocks_between(lines, paragraph_cuts(lines)):
        builder.add(text[block.start : block.end], "prose", heading)


def _text(part: Message[Any, Any]) -> str:
    """The text of a part; a missing, unknown or wrong charset is detected instead of trusted."""
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    return decode(payload, declared=str(part.get_content_charset() or "")).text


def _header(message: EmailMessage, name: str) -> str:
    try:
        value = message.get(name)
    except (ValueError, LookupError, IndexError, AttributeError, TypeError):
        # The header parser of the standard library trips over some malformed addresses.
        value = None
    return re.sub(r"\s+", " ", str(value)).strip() if value is not None else ""


def _date(message: EmailMessage) -> str:
    try:
        moment = parsedate_to_datetime(_header(message, "Date"))
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, TypeError, IndexError):
        return ""

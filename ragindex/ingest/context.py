"""What an encoder is told of a chunk besides its text: the document's title and the headings above it; and the keys
under which what it makes of that is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

from ragindex.chunking.titles import title_line
from ragindex.encoder import Encoder
from ragindex.ingest.late import late_keys
from ragindex.types import Chunk, Document

__all__ = ["ChunkContext"]

_LONGEST = 48  # tokens of a title line


class ChunkContext:
    """Titles of chunks, cut so that they never crowd out the text. Pure for a given encoder and budget.

    late: chunks are embedded in the context of their document, so the headings above them are read anyway and only the
    document's title is told.
    """

    def __init__(self, encoder: Encoder, *, budget: int, late: bool = False) -> None:
        self.late = late
        self._encoder = encoder
        self._most = min(_LONGEST, max(8, budget // 4))
        self._cached_title = lru_cache(maxsize=4096)(self._title)
        self._cached_overhead = lru_cache(maxsize=4096)(self._overhead)

    def title(self, document_title: str, heading: Sequence[str]) -> str:
        """The title line of a chunk: "Handbook > Travel > Rail", the innermost headings kept if it is long."""
        return self._cached_title(document_title, self._told(heading))

    def overhead(self, document_title: str, heading: Sequence[str]) -> int:
        """Tokens that prompt, title line and special tokens cost (the chunker's `overhead`)."""
        return self._cached_overhead(document_title, self._told(heading))

    def keys(self, document: Document, chunks: Sequence[Chunk]) -> list[bytes]:
        """The 16 bytes under which the vector of each chunk of a document is stored, once per encoder.

        They depend on what is said, not on who embeds it: prompts and tokenizer are part of the encoder's fingerprint.
        """
        if self.late:
            return late_keys(document.text, (str(self._most), document.title), chunks)
        return [self._key(chunk.text, document.title, chunk.heading) for chunk in chunks]

    def _told(self, heading: Sequence[str]) -> tuple[str, ...]:
        return () if self.late else tuple(heading)

    def _key(self, text: str, document_title: str, heading: Sequence[str]) -> bytes:
        parts = (str(self._most), document_title, *heading, text)
        digest = blake2b(digest_size=16)
        for part in parts:
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
        return digest.digest()

    def _title(self, document_title: str, heading: tuple[str, ...]) -> str:
        count = self._encoder.tokenizer.count
        line = title_line(document_title, heading, fits=lambda line: count(line) <= self._most)
        offsets = self._encoder.tokenizer.offsets(line)
        return line if len(offsets) <= self._most else line[: int(offsets[self._most - 1][1])].rstrip()

    def _overhead(self, document_title: str, heading: tuple[str, ...]) -> int:
        return self._encoder.document_overhead(self._title(document_title, heading))

"""Cuts a document into chunks that fit an encoder: pure, spans exact."""

from __future__ import annotations

from ragindex.chunking.packing import ChunkOptions, Overhead, chunk
from ragindex.chunking.tokens import TokenCounter

__all__ = ["ChunkOptions", "Overhead", "TokenCounter", "chunk"]

"""What a store tells of itself, ready for JSON: its status and the list of its documents."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ragindex.index.locating import located
from ragindex.index.places import Places
from ragindex.store.catalog import Catalog
from ragindex.store.database import FILE_NAME
from ragindex.store.rows import Activation, DocumentRow, EncoderRow
from ragindex.store.schemes import read_plan
from ragindex.store.snapshot import IndexStatus, LiveIndexes

__all__ = ["bytes_below", "dense", "documents", "status"]


def status(catalog: Catalog, collection: str, places: Places, live: LiveIndexes) -> dict[str, Any]:
    """Counts, sizes on disk, encoders, index factory, generation, pending rows. Loads no encoder."""
    identifier = catalog.collection(collection)
    counts = catalog.counts(identifier)
    active, previous = catalog.encoder(), catalog.previous_encoder()
    state = live.status()
    return {
        "store": str(places.store),
        "collection": collection,
        "collections": catalog.collections(),
        "documents": counts.documents,
        "chunks": counts.chunks,
        "vectors": counts.vectors,
        "failures": counts.failures,
        "tokens": counts.tokens,
        "roots": catalog.roots(identifier),
        "chunk_tokens": places.chunking.tokens,
        "overlap": places.chunking.overlap,
        "late_chunking": places.chunking.late,
        "encoder": None if active is None else _encoder(active, places.store),
        "previous_encoder": None if previous is None else _encoder(previous, places.store),
        "activations": [_activation(entry, places.store) for entry in catalog.activations()],
        "index": state.factory,
        "dense": dense(catalog, identifier, state),
        "generation": state.generation,
        "pending": state.pending,
        "bytes": {
            "catalog": _catalog_bytes(places.store),
            "dense": state.dense_bytes + state.vector_bytes,
            "lexical": state.lexical_bytes,
        },
    }


def dense(catalog: Catalog, collection: int, state: IndexStatus) -> dict[str, Any]:
    """How vectors are kept: what was asked for, the scheme that this means now and why, the scheme of the snapshot
    and the share of the ten nearest that it finds, measured when it was built. memory_bytes: what the snapshot takes
    when it is open; disk_bytes: the vectors beside it that only rescoring reads.
    """
    plan = read_plan(catalog, collection)
    return {
        "asked": plan.index,
        "memory_mb": plan.memory_mb,
        "scheme": None if state.choice is None else state.choice.scheme.name,
        "reason": None if state.choice is None else state.choice.reason,
        "snapshot": state.scheme,
        "recall@10": state.recall,
        "memory_bytes": state.dense_bytes,
        "disk_bytes": state.vector_bytes,
    }


def documents(rows: Iterable[DocumentRow]) -> list[dict[str, Any]]:
    """Documents in the order in which they are given."""
    return [
        {
            "path": row.path,
            "title": row.title,
            "size": row.size,
            "chunks": row.chunks,
            "tokens": row.tokens,
            "characters": row.length,
            "mime": row.metadata.get("mime"),
            "language": row.metadata.get("language"),
            "modified": row.metadata.get("modified"),
            "sha256": row.sha256,
            "indexed_at": row.indexed_at,
        }
        for row in rows
    ]


def bytes_below(directory: Path) -> int:
    """Sizes of all files in a directory."""
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def _catalog_bytes(store: Path) -> int:
    """The catalogue with its log, without the backups beside it."""
    files = [store / f"{FILE_NAME}{suffix}" for suffix in ("", "-wal", "-shm")]
    return sum(file.stat().st_size for file in files if file.exists())


def _encoder(row: EncoderRow, store: Path) -> dict[str, Any]:
    return {
        "name": located(row.locator, store),
        "fingerprint": row.fingerprint,
        "dimensions": row.dimensions,
        "card": dict(row.card),
    }


def _activation(entry: Activation, store: Path) -> dict[str, Any]:
    moment = datetime.fromtimestamp(entry.activated_at, UTC)
    return {
        "name": located(entry.locator, store),
        "fingerprint": entry.fingerprint,
        "activated_at": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "note": entry.note,
    }

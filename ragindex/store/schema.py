"""The tables of the catalogue as SQLAlchemy models; `migrations/` builds the same tables step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
from sqlalchemy import (
    JSON,
    BigInteger,
    Float,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ragindex.store.rows import Float16Array

__all__ = [
    "Base",
    "Change",
    "ChunkModel",
    "CollectionModel",
    "DocumentFieldModel",
    "DocumentModel",
    "DocumentTextModel",
    "EncoderModel",
    "FailureModel",
    "Fp16",
    "RootModel",
    "SettingModel",
    "VectorModel",
]


class Fp16(TypeDecorator[Float16Array]):
    """A vector as little-endian half floats."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Float16Array | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002
        """Array (d,) to 2·d bytes."""
        return None if value is None else np.asarray(value, "<f2").tobytes()

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> Float16Array | None:  # noqa: ARG002
        """2·d bytes to array (d,)."""
        return None if value is None else np.frombuffer(value, "<f2").astype(np.float16)


class Base(DeclarativeBase):
    """Root of the models. Constraints are named so that a later migration can drop them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class SettingModel(Base):
    """One JSON value per key: facts about the store as a whole."""

    __tablename__ = "settings"
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[Any] = mapped_column(JSON)


class EncoderModel(Base):
    """Encoders whose vectors the store holds; the active one is a setting, so that a swap is one update."""

    __tablename__ = "encoders"
    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(unique=True)
    locator: Mapped[str]
    dimensions: Mapped[int]
    card: Mapped[Any] = mapped_column(JSON)


class CollectionModel(Base):
    """A named set of documents with its place in history (see `rows.Mark`).

    The log of changes is complete above `log_start`.
    """

    __tablename__ = "collections"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    generation: Mapped[int] = mapped_column(BigInteger)
    token: Mapped[int] = mapped_column(BigInteger)
    log_start: Mapped[int] = mapped_column(BigInteger)


class RootModel(Base):
    """The paths a collection was indexed from."""

    __tablename__ = "roots"
    __table_args__ = (UniqueConstraint("collection_id", "path"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    path: Mapped[str]


class DocumentModel(Base):
    """A file. Ids are never used twice."""

    __tablename__ = "documents"
    __table_args__ = (UniqueConstraint("collection_id", "path"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(primary_key=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    path: Mapped[str]
    title: Mapped[str]
    sha256: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    checked_ns: Mapped[int] = mapped_column(BigInteger)
    loader: Mapped[str]
    document_metadata: Mapped[Any] = mapped_column("metadata", JSON)
    indexed_at: Mapped[float] = mapped_column(Float)


class DocumentFieldModel(Base):
    """What filters look up: the entries of documents' metadata by key and value. SQLite keeps it level with `documents`
    by triggers (migration 0002) and by the foreign key.

    kind: text, number and boolean have a value; "array" has 1, or 0 where it is empty, and beside it "item text",
    "item number" and "item boolean" for its elements; "other" is an object, or too long to be listed, and filters read
    it from the document. An entry that is null is not there.
    """

    __tablename__ = "document_fields"
    __table_args__ = (
        Index("ix_document_fields_collection_id_key", "collection_id", "key", "kind", "value"),
        {"sqlite_with_rowid": False},
    )
    document_id: Mapped[int] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[Any] = mapped_column(LargeBinary, primary_key=True)  # BLOB: SQLite stores any type there as it is
    collection_id: Mapped[int]


class DocumentTextModel(Base):
    """The whole text, zlib-compressed UTF-8, in a table of its own so that listings never page through it."""

    __tablename__ = "document_texts"
    document_id: Mapped[int] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True)
    length: Mapped[int]
    text: Mapped[bytes] = mapped_column(LargeBinary)


class ChunkModel(Base):
    """A span of a document. Ids are never used twice: the indexes know chunks by id alone."""

    __tablename__ = "chunks"
    __table_args__ = (
        UniqueConstraint("document_id", "ordinal"),
        Index("ix_chunks_collection_id", "collection_id"),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    document_id: Mapped[int] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"))
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    ordinal: Mapped[int]
    start: Mapped[int]
    end: Mapped[int]
    line_start: Mapped[int]
    line_end: Mapped[int]
    page: Mapped[int | None]
    tokens: Mapped[int]
    heading: Mapped[Any] = mapped_column(JSON)
    vector_key: Mapped[bytes] = mapped_column(LargeBinary(16))
    text: Mapped[str]


class VectorModel(Base):
    """A text's vector under one encoder. Chunks refer to it by key: equal texts share it, several encoders coexist."""

    __tablename__ = "vectors"
    # The key leads: with the encoder first SQLite would rather scan all of its vectors than look up a few.
    __table_args__ = (UniqueConstraint("key", "encoder_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoders.id", ondelete="CASCADE"))
    key: Mapped[bytes] = mapped_column(LargeBinary(16))
    data: Mapped[Float16Array] = mapped_column(Fp16)


class Change(Base):
    """The log that snapshots are replayed from: `op` is +1 for a chunk that was put, -1 for one that went."""

    __tablename__ = "changes"
    __table_args__ = (Index("ix_changes_collection_id_seq", "collection_id", "seq"), {"sqlite_autoincrement": True})
    seq: Mapped[int] = mapped_column(primary_key=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    chunk_id: Mapped[int] = mapped_column(BigInteger)
    op: Mapped[int]
    token: Mapped[int] = mapped_column(BigInteger)


class FailureModel(Base):
    """A file that could not be indexed, and why."""

    __tablename__ = "failures"
    __table_args__ = (UniqueConstraint("collection_id", "path"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    path: Mapped[str]
    reason: Mapped[str]
    sha256: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    failed_at: Mapped[float] = mapped_column(Float)

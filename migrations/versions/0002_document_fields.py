"""The values of documents' metadata in a table of their own, sorted, so that filters look them up.

Triggers keep it level with `documents`, whoever writes there: a program of the first schema too. A later migration that
makes `documents` anew has to make its triggers anew.
"""

# ruff: noqa: S608 - statements are put together from constants
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# `ragindex.store.schema.DocumentFieldModel` says what the rows mean. {documents} is the table or, in a trigger, a row
# of it; {each} is its metadata. A CASE guards every json_each: SQLite stops at what is no JSON, and one damaged
# document must not be in the way of all others.
_ROWS = """
SELECT {documents}.collection_id, fields.key,
    CASE WHEN fields.type IN ('integer', 'real') THEN 'number'
         WHEN fields.type IN ('true', 'false') THEN 'boolean'
         WHEN fields.type = 'text' AND length(fields.value) <= 200 THEN 'text'
         WHEN fields.type = 'array' AND length(fields.value) <= 1000 THEN 'array'
         ELSE 'other' END,
    CASE WHEN fields.type IN ('integer', 'real', 'true', 'false') THEN fields.value
         WHEN fields.type = 'text' AND length(fields.value) <= 200 THEN fields.value
         WHEN fields.type = 'array' AND length(fields.value) <= 1000 THEN fields.value != '[]'
         ELSE '' END,
    {documents}.id
FROM {source}json_each({each}) AS fields WHERE fields.type != 'null'
UNION
SELECT {documents}.collection_id, fields.key,
    CASE WHEN items.type IN ('integer', 'real') THEN 'item number'
         WHEN items.type IN ('true', 'false') THEN 'item boolean'
         ELSE 'item text' END,
    items.value, {documents}.id
FROM {source}json_each({each}) AS fields
JOIN json_each(CASE WHEN fields.type = 'array' AND length(fields.value) <= 1000 THEN fields.value END) AS items
WHERE items.type IN ('text', 'integer', 'real', 'true', 'false')
"""
_PUT = "INSERT INTO document_fields (collection_id, key, kind, value, document_id)"


def _rows(documents: str, source: str = "") -> str:
    each = f"CASE WHEN json_valid({documents}.metadata) THEN {documents}.metadata END"
    return _ROWS.format(documents=documents, source=source, each=each)


def upgrade() -> None:
    op.create_table(
        "document_fields",
        sa.Column("document_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("collection_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name="fk_document_fields_document_id_documents", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("document_id", "key", "kind", "value", name="pk_document_fields"),
        sqlite_with_rowid=False,
    )
    op.execute(f"{_PUT} {_rows('documents', 'documents, ')}")
    columns = ["collection_id", "key", "kind", "value"]
    op.create_index("ix_document_fields_collection_id_key", "document_fields", columns)
    op.execute(f"CREATE TRIGGER document_fields_put AFTER INSERT ON documents BEGIN {_PUT} {_rows('new')}; END")
    op.execute(
        "CREATE TRIGGER document_fields_changed AFTER UPDATE OF collection_id, metadata ON documents BEGIN "
        f"DELETE FROM document_fields WHERE document_id = old.id; {_PUT} {_rows('new')}; END"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER document_fields_put")
    op.execute("DROP TRIGGER document_fields_changed")
    op.drop_table("document_fields")

"""Runs migrations on the database that `ragindex.store.migrate` hands over, one transaction for all of them."""

from __future__ import annotations

from alembic import context

from ragindex.store.database import Database
from ragindex.store.schema import Base


def run() -> None:
    database: Database = context.config.attributes["database"]
    with database.writing() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
        context.run_migrations()


run()

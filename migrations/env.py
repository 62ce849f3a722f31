"""Runs migrations on the database that `ragindex.store.migrate` hands over, one transaction for all of them.

Foreign keys are not enforced meanwhile: SQLite changes a table by making it anew, and dropping the old one would take
along every row that refers to it. They are checked before the transaction is committed instead.
"""

from __future__ import annotations

from alembic import context

from ragindex.errors import CorruptionError
from ragindex.store.database import Database
from ragindex.store.schema import Base


def run() -> None:
    database: Database = context.config.attributes["database"]
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        dangling = set(connection.exec_driver_sql("PRAGMA foreign_key_check").all())
        context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
        context.run_migrations()
        if found := set(connection.exec_driver_sql("PRAGMA foreign_key_check").all()) - dangling:
            row = min(found, key=str)
            raise CorruptionError(f"row {row[1]} of {row[0]} would refer to a missing row of {row[2]}")
        connection.commit()


run()

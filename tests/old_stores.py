"""A small store of every schema that was ever released, kept as SQL in `tests/stores/`, and what it must answer.

A migration comes with the store of the schema that it makes:

    python tests/old_stores.py

writes `tests/stores/<schema>.sql` and `.json` with the program as it stands. What is there is never written again: it
is what people have on their disks. The content below may grow; older stores keep what they have, and their answers.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from store_kit import DIMENSIONS, FINGERPRINT, key, state, vector, write

from ragindex.filters import parse
from ragindex.store.catalog import HEAD, Batch, Catalog, FailureWrite, Move
from ragindex.store.snapshot import LiveIndexes

STORES = Path(__file__).with_name("stores")
_FILTERS = (
    "path like 'docs/%'",
    "lang = 'en'",
    "lang != 'en'",
    "size > 50",
    "size = '10'",
    "draft = true",
    "tags contains 'x'",
    "author.name = 'Ada'",
    "note is null",
    "page >= 3",
    "heading = 'Rotate'",
    "long like 'words w%'",
    "lang in ('de', 'fr') or weight < 2",
)


def fill(folder: Path) -> None:
    """A store with something of everything that the catalogue can hold, at times that do not depend on the clock."""
    with Catalog.open(folder) as catalog:
        collection = catalog.collection("default", create=True)
        other = catalog.collection("other", create=True)
        for fingerprint, note in (("earlier-encoder", "first"), (FINGERPRINT, "better")):
            catalog.register_encoder(fingerprint, "bundled", DIMENSIONS, {"name": fingerprint, "prompts": {"q": "é"}})
            catalog.activate_encoder(fingerprint, note=note)
        catalog.add_vectors(1, {key("alpha rotates keys"): vector("alpha rotates keys")})
        catalog.add_root(collection, "docs")
        catalog.set_setting("dense/1", {"index": "auto", "memory_mb": 500})
        nested = {"name": "Ada", "born": {"year": 1815}}
        writes = [
            write("docs/a.md", "alpha rotates keys", "alpha again", title="Keys", heading=("Guide", "Rotate")),
            write("docs/ü.md", "beta über alles", lang="de", size=200, draft=False, note=None),
            write("src/c.py", "gamma 日本語", title="Code", page=3, lang="en", size="10", weight=1.5),
            write("src/d.py", "delta", page=7, **{"odd\"key'$.": "x", "a.b": 1, "long": "words " * 100}),
            write("gone.txt", "will be removed"),
            write("old name.txt", "epsilon moved here"),
            write("empty.txt"),
        ]
        described = {"lang": "en", "size": 10, "draft": True, "tags": ["x", "Y", 3, True], "author": nested}
        writes[0] = replace(writes[0], document=replace(writes[0].document, metadata=described))
        catalog.commit(collection, Batch(writes=[replace(one, encoder_id=2) for one in writes]))
        moved = Move("old name.txt", "new name.txt", state("new name.txt"), {"moved": True})
        failure = FailureWrite("broken.pdf", "the file ends in the middle", 12, 3, "ff")
        generation = catalog.commit(collection, Batch(removes=["gone.txt"], moves=[moved], failures=[failure]))
        catalog.commit(
            other, Batch(writes=[replace(write("docs/a.md", "another collection", lang="en"), encoder_id=2)])
        )
        catalog.trim_changes(collection, generation - 2)
        activations = catalog.setting("activations")
        catalog.set_setting("activations", [{**entry, "activated_at": 1.7e9} for entry in activations])
    with closing(sqlite3.connect(folder / "catalog.sqlite")) as connection:
        connection.execute("UPDATE documents SET indexed_at = 1.7e9")
        connection.execute("UPDATE failures SET failed_at = 1.7e9")
        connection.execute("UPDATE collections SET token = 7")
        connection.execute("UPDATE changes SET token = 7")
        connection.commit()


def answers(folder: Path, *, of: str | None = None) -> dict[str, Any]:
    """What the store says, by every way there is to ask it; of: to what the store of that schema was asked once."""
    with Catalog.open(folder, create=False) as catalog:
        said: dict[str, Any] = {
            "collections": catalog.collections(),
            "encoders": [[row.fingerprint, row.locator, row.dimensions, row.card] for row in catalog.encoders()],
            "activations": [[row.fingerprint, row.note] for row in catalog.activations()],
            "settings": catalog.setting("dense/1"),
            "verify": catalog.integrity(),
        }
        for name in catalog.collections():
            said[name] = _collection(catalog, folder, catalog.collection(name))
    told: dict[str, Any] = json.loads(json.dumps(said, ensure_ascii=False))
    return told if of is None else _asked(told, expected(of))


def _asked(told: dict[str, Any], once: dict[str, Any]) -> dict[str, Any]:
    return {key: _asked(told[key], value) if isinstance(value, dict) else told[key] for key, value in once.items()}


def _collection(catalog: Catalog, folder: Path, collection: int) -> dict[str, Any]:
    row = catalog.encoder()
    assert row is not None
    live = LiveIndexes(catalog, folder, collection, row.id, row.dimensions)
    ids = catalog.allowed(collection, parse("true"))
    assert ids is not None
    texts = {chunk.chunk_id: chunk.text for chunk in catalog.hits(ids)}

    def named(found: Any) -> list[str]:
        return [texts[one] for one in found.tolist()]

    said = {
        "documents": [[one.path, one.title, one.size, one.metadata] for one in catalog.documents(collection)],
        "texts": [[one.path, one.text] for one in catalog.iter_documents(collection)],
        "chunks": [
            [chunk.text, list(chunk.heading), chunk.page, chunk.start, chunk.end, chunk.tokens]
            for chunk in catalog.hits(ids)
        ],
        "vectors": hashlib.sha256(catalog.vectors(row.id, ids.tolist()).tobytes()).hexdigest(),
        "states": [list(one) for one in catalog.file_states(collection).values()],
        "failures": [[one.path, one.reason] for one in catalog.failures(collection)],
        "roots": catalog.roots(collection),
        "mark": [catalog.mark(collection).generation, catalog.mark(collection).token],
        "filters": {asked: named(catalog.allowed(collection, parse(asked))) for asked in _FILTERS},
        "dense": named(live.dense().search(vector("delta").astype("f4"), 3).ids),
        "lexical": named(live.lexical().search("rotates alpha", 3).ids),
    }
    live.close()
    return said


def dumped(folder: Path) -> str:
    """The store as SQL."""
    with closing(sqlite3.connect(folder / "catalog.sqlite")) as connection:
        return "\n".join(connection.iterdump()) + "\n"


def made(version: str, folder: Path) -> Path:
    """The store of a schema in a folder, as somebody left it there."""
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / "catalog.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript((STORES / f"{version}.sql").read_text(encoding="utf-8"))
    return folder


def expected(version: str) -> dict[str, Any]:
    """What the store of a schema must answer, whatever it was upgraded to."""
    answer: dict[str, Any] = json.loads((STORES / f"{version}.json").read_text(encoding="utf-8"))
    return answer


def main() -> None:
    """Keep a store of this program's schema."""
    file = STORES / f"{HEAD}.sql"
    if file.exists():
        sys.exit(f"{file.name} is there; a schema that was released does not change any more.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "store"
        fill(folder)
        file.write_text(dumped(folder), encoding="utf-8")
        told = json.dumps(answers(folder), ensure_ascii=False, indent=1, sort_keys=True)
        file.with_suffix(".json").write_text(told + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""One store among its rivals: fills it, opens it and asks it, in an interpreter of its own. Run by `rivals.py`.

    PYTHON benchmarks/_rival.py SYSTEM fill|open|ask FOLDER

FOLDER holds what `rivals.py` put there: `texts.json`, `vectors.npy`, `metadata.json`, `questions.npy`, `truth.json`.
The store is made in `FOLDER/SYSTEM`. Every system is given the vectors and stores texts and metadata beside them; each
is set up as its manual says for this size. Prints one JSON value. Needs numpy, and what its system brings.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BATCH, K, RECALL, WARM = 2_000, 10, 0.99, 5
ROUNDS = 3  # of opening
CASES: dict[str, dict[str, Any] | None] = {
    "all": None,
    "topic = 7 (0.5 %)": {"topic": 7},
    "serial < 10 %": {"serial": 0.1},
    "kind = 'note' (25 %)": {"kind": "note"},
}


class Data(NamedTuple):
    """What there is to store, and to ask."""

    texts: list[str]
    vectors: Any
    metadata: list[dict[str, Any]]
    questions: Any
    truth: dict[str, list[list[int]]]

    @classmethod
    def read(cls, folder: Path) -> Data:
        """What `rivals.py` put into the folder."""
        texts, metadata, truth = (
            json.loads((folder / f"{name}.json").read_text()) for name in ("texts", "metadata", "truth")
        )
        return cls(texts, np.load(folder / "vectors.npy"), metadata, np.load(folder / "questions.npy"), truth)

    def batches(self) -> Iterator[slice]:
        """Places of chunks that are added together."""
        return (slice(start, start + BATCH) for start in range(0, len(self.texts), BATCH))


def bound(case: dict[str, Any], count: int) -> int:
    """Below which serial number a share of the documents lies."""
    return int(case["serial"] * count)


class Ragindex:
    """`Index.records` with vectors that are brought. Its full-text index is filled too: it has no switch."""

    knobs = (0,)  # it measures by itself how widely it has to look

    def __init__(self, folder: Path) -> None:
        from ragindex import Index
        from ragindex.encoder.brought import BroughtEncoder

        self._index = Index.open(folder, encoder=BroughtEncoder("given", dimensions=384))

    def tune(self, knob: int) -> None:
        pass

    def fill(self, data: Data) -> None:
        from ragindex.types import Record

        self._index.records.put(
            Record(str(number), text, vector=vector.tolist(), metadata=metadata)
            for number, (text, vector, metadata) in enumerate(zip(data.texts, data.vectors, data.metadata, strict=True))
        )

    def ask(self, vector: Any, case: dict[str, Any] | None, documents: int) -> list[int]:
        test = None
        if case is not None:
            [(key, value)] = case.items()
            test = f"serial < {bound(case, documents)}" if key == "serial" else f"{key} = {value!r}"
        return [int(entry.id) for entry in self._index.records.search(vector=vector, k=K, filter=test)]

    def close(self) -> None:
        self._index.close()


class Chroma:
    """A persistent client; its HNSW index as it comes, the search list as wide as needed."""

    knobs = (100, 200, 400, 800, 1600)

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open()

    def tune(self, knob: int) -> None:
        self._table.modify(configuration={"hnsw": {"ef_search": knob}})
        self._open()

    def _open(self) -> None:
        chromadb = importlib.import_module("chromadb")
        # A client keeps what it has open, and a new width is seen by the next one.
        importlib.import_module("chromadb.api.client").SharedSystemClient.clear_system_cache()
        client = chromadb.PersistentClient(
            path=str(self._folder), settings=chromadb.Settings(anonymized_telemetry=False)
        )
        space = {"hnsw": {"space": "ip"}}
        self._table = client.get_or_create_collection("chunks", configuration=space, embedding_function=None)

    def fill(self, data: Data) -> None:
        for part in data.batches():
            ids = [str(number) for number in range(len(data.texts))[part]]
            self._table.add(
                ids=ids, documents=data.texts[part], embeddings=data.vectors[part], metadatas=data.metadata[part]
            )

    def ask(self, vector: Any, case: dict[str, Any] | None, documents: int) -> list[int]:
        where = case if case is None or "serial" not in case else {"serial": {"$lt": bound(case, documents)}}
        found = self._table.query(query_embeddings=vector[None], n_results=K, where=where)
        return [int(identifier) for identifier in found["ids"][0]]

    def close(self) -> None:
        pass


class Lance:
    """IVF lists of 8-bit codes, refined with the stored vectors; indexes on the columns that are filtered, and one for
    full text, since ragindex has one.
    """

    knobs = (16, 32, 64, 128, 256, 512, 1024)

    def __init__(self, folder: Path) -> None:
        self._base = importlib.import_module("lancedb").connect(str(folder))
        self._table = self._base.open_table("chunks") if folder.is_dir() and any(folder.iterdir()) else None
        self._knob = self.knobs[0]

    def tune(self, knob: int) -> None:
        self._knob = knob

    def fill(self, data: Data) -> None:
        arrow = importlib.import_module("pyarrow")
        width = data.vectors.shape[1]
        for part in data.batches():
            columns = {key: [row[key] for row in data.metadata[part]] for key in data.metadata[0]}
            flat = arrow.array(np.ascontiguousarray(data.vectors[part]).ravel())
            columns["vector"] = arrow.FixedSizeListArray.from_arrays(flat, width)
            columns |= {"id": list(range(len(data.texts))[part]), "text": data.texts[part]}
            rows = arrow.table(columns)
            if self._table is None:
                self._table = self._base.create_table("chunks", rows)
            else:
                self._table.add(rows)
        assert self._table is not None
        self._table.optimize()  # one file of the many; after the indexes are made it would make them anew, and coarser
        self._table.create_index(metric="dot", index_type="IVF_SQ", num_partitions=round(4 * len(data.texts) ** 0.5))
        for column in ("topic", "serial"):
            self._table.create_scalar_index(column)
        self._table.create_scalar_index("kind", index_type="BITMAP")
        self._table.create_fts_index("text")

    def ask(self, vector: Any, case: dict[str, Any] | None, documents: int) -> list[int]:
        assert self._table is not None
        query = (
            self._table.search(vector, query_type="vector")
            .distance_type("dot")
            .nprobes(self._knob)
            .refine_factor(4)
            .limit(K)
        )
        if case is not None:
            [(key, value)] = case.items()
            query = query.where(f"serial < {bound(case, documents)}" if key == "serial" else f"{key} = {value!r}")
        return [row["id"] for row in query.select(["id", "text", "_distance"]).to_list()]

    def close(self) -> None:
        pass


class Txtai:
    """FAISS lists of whole vectors and a content database; filters are tested on so many candidates of the search."""

    knobs = (1, 2, 4, 8, 16, 64, 256)  # times the list numbers and candidates that it comes with

    def __init__(self, folder: Path) -> None:
        self._folder, self._knob = folder, self.knobs[0]
        module = importlib.import_module("txtai")
        self._vectors: dict[str, Any] = {}

        def given(texts: Sequence[str]) -> Any:
            return np.array([self._vectors[text] for text in texts], np.float32)

        setup = {"method": "external", "transform": given, "content": True}
        self._store = module.Embeddings(setup)
        if folder.is_dir():
            self._store.load(str(folder), config=setup)

    def tune(self, knob: int) -> None:
        self._knob = knob

    def fill(self, data: Data) -> None:
        self._vectors = dict(zip(data.texts, data.vectors, strict=True))
        rows = zip(data.texts, data.metadata, strict=True)
        self._store.index((number, {"text": text, **metadata}) for number, (text, metadata) in enumerate(rows))
        self._store.save(str(self._folder))

    def ask(self, vector: Any, case: dict[str, Any] | None, documents: int) -> list[int]:
        self._vectors["the question"] = vector
        lists = getattr(self._store.ann.backend, "nlist", 16)
        self._store.ann.config["faiss"] = {"nprobe": min(lists, self._knob * lists // 16)}
        if case is None:
            test = ""
        else:
            [(key, value)] = case.items()
            test = f" and serial < {bound(case, documents)}" if key == "serial" else f" and {key} = {value!r}"
        candidates = K if case is None else K * 10 * self._knob
        query = f"select id, text, score from txtai where similar(:q, {candidates}){test} limit {K}"
        return [int(row["id"]) for row in self._store.search(query, parameters={"q": "the question"})]

    def close(self) -> None:
        self._store.close()


SYSTEMS: dict[str, Callable[[Path], Any]] = {
    "ragindex": Ragindex,
    "chromadb": Chroma,
    "lancedb": Lance,
    "txtai": Txtai,
}


def fill(name: str, folder: Path) -> dict[str, Any]:
    """Make the store; what it took until it could be searched, and the bytes it takes."""
    data = Data.read(folder)
    wall, processor = time.perf_counter(), time.process_time()
    system = SYSTEMS[name](folder / name)
    system.fill(data)
    documents = data.metadata[-1]["serial"] + 1
    system.ask(data.questions[0], None, documents)
    took = time.perf_counter() - wall, time.process_time() - processor
    system.close()
    size = sum(file.stat().st_size for file in (folder / name).rglob("*") if file.is_file())
    return {"wall": took[0], "processor": took[1], "bytes": size}


def open_(name: str, folder: Path) -> dict[str, Any]:
    """From an interpreter with nothing but numpy to the first answer."""
    question = np.load(folder / "questions.npy")[0]
    wall, processor = time.perf_counter(), time.process_time()
    system = SYSTEMS[name](folder / name)
    assert len(system.ask(question, None, 1)) == K
    return {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}


def ask(name: str, folder: Path) -> dict[str, Any]:
    """For each case the first knob that reaches the recall, and the times of the questions with it."""
    data = Data.read(folder)
    system = SYSTEMS[name](folder / name)
    documents = data.metadata[-1]["serial"] + 1
    found = {}
    for case, test in CASES.items():
        truth = data.truth[case]

        def recall(test: dict[str, Any] | None = test, truth: list[list[int]] = truth) -> float:
            asked = zip(data.questions, truth, strict=True)
            return statistics.mean(
                len(set(system.ask(vector, test, documents)) & set(ids)) / len(ids) if ids else 1.0
                for vector, ids in asked
            )

        reached = 0.0
        for knob in system.knobs:
            system.tune(knob)
            reached = recall()
            if reached >= RECALL:
                break
        times: dict[str, list[float]] = {"wall": [], "processor": []}
        for vector in data.questions:
            wall, processor = time.perf_counter(), time.process_time()
            system.ask(vector, test, documents)
            times["wall"].append(time.perf_counter() - wall)
            times["processor"].append(time.process_time() - processor)
        found[case] = {
            "recall": reached,
            "knob": knob,
            **{clock: statistics.median(each) for clock, each in times.items()},
        }
    system.close()
    return found


if __name__ == "__main__":
    work = {"fill": fill, "open": open_, "ask": ask}[sys.argv[2]]
    print(json.dumps(work(sys.argv[1], Path(sys.argv[3]))))

"""What the smaller forms of vectors cost in quality: recall@10 against exact float32, and nDCG@10 as a share of it.

    python benchmarks/outputs.py --data DIR [--encoder NAME] [--documents 1000] [--dimensions 384,192]

DIR is a judged data set in the BEIR layout. A seeded sample of its documents, the judged ones first, is encoded once,
and everything is ranked in the same run; queries stay exact. recall@10 is the share of the 10 best by exact cosines in
full length that are among the 10 best by codes; rescored, when the 40 best by codes are ranked again exactly.
Prints ratios; asserts nothing.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from _common import table

from ragindex.encoder import Encoder, Quantiser
from ragindex.encoder.quantise import Output, hamming_distances, int8_ranges
from ragindex.evaluation import Dataset, evaluate, load_dataset

_BEST, _CANDIDATES = 10, 40
_CALIBRATION = 500
_HEADER = ("output", "dimensions", "bytes", "cosine lost", "recall@10", "rescored", "nDCG@10 / exact")


@dataclass(frozen=True, slots=True)
class Sample:
    """Exact vectors of documents and queries, and what is judged of them."""

    documents: Sequence[str]
    queries: Sequence[str]
    document_vectors: np.ndarray
    query_vectors: np.ndarray
    qrels: Mapping[str, Mapping[str, int]]

    def ndcg(self, scores: np.ndarray) -> float:
        """nDCG@10 of scores (queries, documents)."""
        ranked = {
            query: [self.documents[place] for place in row]
            for query, row in zip(self.queries, best(scores, 100), strict=True)
        }
        return evaluate(ranked, self.qrels).ndcg_at_10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--encoder", default="bundled")
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--dimensions", help="lengths to cut to, separated by commas; full and half by default")
    options = parser.parse_args()
    encoder = Encoder.load(options.encoder)
    sample = encoded(encoder, load_dataset(options.data), options.documents)
    full = encoder.dimensions
    lengths = [int(part) for part in options.dimensions.split(",")] if options.dimensions else [full, full // 2]
    exact = sample.query_vectors @ sample.document_vectors.T
    print(f"{encoder.name}, {len(sample.documents):,} documents, {len(sample.queries)} queries\n")
    rows = [row for length in lengths for row in rows_for(sample, exact, length)]
    print(table(_HEADER, rows))


def encoded(encoder: Encoder, dataset: Dataset, count: int) -> Sample:
    """A sample of a data set as vectors."""
    assert dataset.corpus is not None
    judged = sorted({document for row in dataset.qrels.values() for document in row} & set(dataset.corpus))
    others = sorted(set(dataset.corpus) - set(judged))
    shuffled = random.Random(0)
    documents = [*shuffled.sample(judged, len(judged)), *shuffled.sample(others, len(others))][:count]
    kept = set(documents)
    qrels = {
        query: relevant
        for query, row in dataset.qrels.items()
        if (relevant := {document: grade for document, grade in row.items() if document in kept})
    }
    queries = sorted(qrels)
    texts = [dataset.corpus[document] for document in documents]
    return Sample(
        documents,
        queries,
        np.stack([mean_vector(encoder, title, text) for title, text in texts]),
        encoder.encode_queries([dataset.queries[query] for query in queries]),
        qrels,
    )


def mean_vector(encoder: Encoder, title: str, text: str) -> np.ndarray:
    """The vector of a document, whole; of a longer one that of its parts, so that nothing is cut."""
    room = encoder.max_tokens - encoder.document_overhead(title)
    offsets = encoder.tokenizer.offsets(text)
    starts = range(0, max(1, len(offsets)), room)
    parts = (
        [text[offsets[start][0] : offsets[min(start + room, len(offsets)) - 1][1]] for start in starts]
        if len(offsets)
        else [text]
    )
    vector = encoder.encode_documents(parts, titles=[title] * len(parts)).mean(axis=0)
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)


def rows_for(sample: Sample, exact: np.ndarray, dimensions: int) -> list[Sequence[str]]:
    """A row for each output of vectors cut to `dimensions`."""
    documents, queries = (cut(vectors, dimensions) for vectors in (sample.document_vectors, sample.query_vectors))
    quantisers = {name: Quantiser(name, dimensions) for name in get_args(Output) if name != "binary"}
    named: dict[str, Quantiser] = {**quantisers}
    named["int8, ranges"] = Quantiser("int8", dimensions, int8_ranges(documents[:_CALIBRATION]))
    rows = []
    for name, quantiser in named.items():
        codes = quantiser.encode(documents)
        rows.append(row(sample, exact, name, quantiser, documents, codes, quantiser.scores(queries, codes)))
        if name == "ubinary":
            distances = -hamming_distances(quantiser.encode(queries), codes)
            rows.append(row(sample, exact, "ubinary, Hamming", quantiser, documents, codes, distances))
    return rows


def row(
    sample: Sample,
    exact: np.ndarray,
    name: str,
    quantiser: Quantiser,
    documents: np.ndarray,
    codes: np.ndarray,
    scores: np.ndarray,
) -> Sequence[str]:
    lost = 1 - float(np.einsum("ij,ij->i", documents, quantiser.decode(codes), dtype=np.float64).mean())
    wanted = best(exact, _BEST)
    again = np.full_like(exact, -np.inf)
    candidates = best(scores, _CANDIDATES)
    np.put_along_axis(again, candidates, np.take_along_axis(exact, candidates, axis=1), axis=1)
    return (
        name,
        str(quantiser.dimensions),
        f"{codes.nbytes // len(codes):,}",
        f"{max(lost, 0.0):.1e}",
        f"{overlap(best(scores, _BEST), wanted):.3f}",
        f"{overlap(best(again, _BEST), wanted):.3f}",
        f"{sample.ndcg(scores) / sample.ndcg(exact):.3f}",
    )


def cut(vectors: np.ndarray, dimensions: int) -> np.ndarray:
    """The first values of vectors, normalised again."""
    shorter = vectors[:, :dimensions]
    return np.asarray(shorter / np.linalg.norm(shorter, axis=1, keepdims=True), dtype=np.float32)


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """Places of the highest scores of each row, best first; equal ones in order of place."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def overlap(found: np.ndarray, wanted: np.ndarray) -> float:
    """How many of the wanted were found, on average."""
    return float(np.mean([len(set(one) & set(other)) / len(other) for one, other in zip(found, wanted, strict=True)]))


if __name__ == "__main__":
    main()

"""nDCG@10 on judged data sets: our lexical side against bm25s, our hybrid against the better of its two sides.

    python benchmarks/quality.py --data DIR [--sets adi,cisi] [--encoder NAME] [--queries N]

DIR holds data sets in the BEIR layout. The baseline is bm25s (Lucene's BM25, k1=1.5, b=0.75, Snowball stems, English
stop words) over title and text. Prints a Markdown table row by row, and a verdict per goal.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ragindex import Index
from ragindex.evaluation import Dataset, evaluate, load_dataset
from ragindex.measure import fill, rank_documents

_DEPTH = 100
_LEXICAL_SLACK, _HYBRID_SLACK, _HYBRID_GAIN = 0.02, 0.01, 0.02
_HEADER = ("set", "documents", "queries", "bm25s", "lexical", "dense", "hybrid", "hybrid − max")


@dataclass(frozen=True, slots=True)
class Row:
    """nDCG@10 of one data set."""

    name: str
    bm25s: float
    lexical: float
    dense: float
    hybrid: float

    @property
    def better(self) -> float:
        """The better of the two sides."""
        return max(self.lexical, self.dense)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--sets", help="names separated by commas; all of DIR by default")
    parser.add_argument("--encoder", default="bundled")
    parser.add_argument("--queries", type=int, help="ask a seeded sample of at most so many queries of each set")
    options = parser.parse_args()
    names = options.sets.split(",") if options.sets else sorted(file.parent.name for file in listings(options.data))
    print(f"| {' | '.join(_HEADER)} |\n|---|{'---:|' * (len(_HEADER) - 1)}", flush=True)
    rows = []
    for name in names:
        dataset = load_dataset(options.data / name)
        chosen = sampled(dataset, options.queries)
        row = measured(chosen, options.encoder)
        rows.append(row)
        asked = f"{len(chosen.queries)}" + (f" of {len(dataset.queries)}" if chosen is not dataset else "")
        figures = (row.bm25s, row.lexical, row.dense, row.hybrid)
        cells = (name, f"{len(passages(dataset))}", asked, *(f"{figure:.3f}" for figure in figures))
        print(f"| {' | '.join(cells)} | {row.hybrid - row.better:+.3f} |", flush=True)
    means = [statistics.mean(column) for column in _columns(rows)]
    gain = means[3] - statistics.mean(row.better for row in rows)
    print(f"| **mean** | | | {' | '.join(f'{figure:.3f}' for figure in means)} | {gain:+.3f} |\n")
    print("\n".join(verdicts(rows, gain)))


def sampled(dataset: Dataset, count: int | None) -> Dataset:
    """The data set with at most `count` of its queries, the same ones every time."""
    if count is None or len(dataset.queries) <= count:
        return dataset
    chosen = set(random.Random(0).sample(sorted(dataset.queries), count))
    return replace(
        dataset,
        queries={key: text for key, text in dataset.queries.items() if key in chosen},
        qrels={key: judged for key, judged in dataset.qrels.items() if key in chosen},
    )


def measured(dataset: Dataset, encoder: str) -> Row:
    """Index the set once and rank with all four."""
    with tempfile.TemporaryDirectory() as folder, Index.open(Path(folder) / "store", encoder=encoder) as index:
        fill(index, dataset, None)
        own = {
            mode: evaluate(rank_documents(index, dataset, mode), dataset.qrels).ndcg_at_10
            for mode in ("lexical", "dense", "hybrid")
        }
    baseline = evaluate(bm25s_rankings(dataset), dataset.qrels).ndcg_at_10
    return Row(dataset.name, baseline, own["lexical"], own["dense"], own["hybrid"])


def bm25s_rankings(dataset: Dataset) -> Mapping[str, Sequence[str]]:
    """Document ids by query, from bm25s over whole documents. Ones without a common word are no results."""
    import bm25s
    import Stemmer

    texts = passages(dataset)
    ids = list(texts)
    stemmer = Stemmer.Stemmer("english")
    retriever = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    tokens = bm25s.tokenize(list(texts.values()), stopwords="en", stemmer=stemmer, show_progress=False)
    retriever.index(tokens, show_progress=False)
    asked = bm25s.tokenize(list(dataset.queries.values()), stopwords="en", stemmer=stemmer, show_progress=False)
    found, scores = retriever.retrieve(asked, k=min(_DEPTH, len(ids)), show_progress=False)
    return {
        key: [ids[place] for place, score in zip(places, own, strict=True) if score > 0]
        for key, places, own in zip(dataset.queries, found, scores, strict=True)
    }


def passages(dataset: Dataset) -> Mapping[str, str]:
    """Title and text of each document, as one string."""
    if dataset.corpus is not None:
        return {key: f"{title} {text}".strip() for key, (title, text) in dataset.corpus.items()}
    assert dataset.files is not None
    files = sorted(path for path in dataset.files.rglob("*") if path.is_file())
    return {
        file.relative_to(dataset.files).as_posix(): file.read_text(encoding="utf-8", errors="replace") for file in files
    }


def verdicts(rows: Sequence[Row], gain: float) -> list[str]:
    """One line per goal."""
    behind = [row.name for row in rows if row.lexical < row.bm25s - _LEXICAL_SLACK]
    worse = [row.name for row in rows if row.hybrid < row.better - _HYBRID_SLACK]
    return [
        f"{_word(not behind)}: lexical within {_LEXICAL_SLACK} of bm25s{_except(behind)}",
        f"{_word(len(worse) <= 1)}: hybrid ≥ the better side − {_HYBRID_SLACK}, one exception allowed{_except(worse)}",
        f"{_word(gain >= _HYBRID_GAIN)}: hybrid gains {gain:+.3f} over the better side on average, goal {_HYBRID_GAIN}",
    ]


def _columns(rows: Sequence[Row]) -> list[list[float]]:
    return [[getattr(row, name) for row in rows] for name in ("bm25s", "lexical", "dense", "hybrid")]


def listings(folder: Path) -> list[Path]:
    return list(folder.glob("*/queries.jsonl*"))


def _word(met: bool) -> str:
    return "met" if met else "NOT MET"


def _except(names: Sequence[str]) -> str:
    return f"; not on {', '.join(names)}" if names else ""


if __name__ == "__main__":
    main()

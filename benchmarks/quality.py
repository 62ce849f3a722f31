"""nDCG@10 on judged data sets: encoders beside each other, dense and hybrid, and beside BM25; what of it is certain.

    python benchmarks/quality.py --data DIR [--encoder bundled --encoder DIR_OF_ANOTHER] [--sets adi,cisi] [--queries N]

DIR holds data sets in the BEIR layout. Every encoder indexes every set with the default settings (chunks that fit it,
the best chunk of a document counts). bm25s is Lucene's BM25 (k1=1.5, b=0.75, Snowball stems, English stop words) over
whole documents; an encoder "+ bm25s" is what frameworks make of the two: the rankings of its dense search and of bm25s,
by reciprocal-rank fusion. Intervals are 95 % bootstrap intervals over queries; the mean weighs every set alike. Below
the table stands the first encoder's difference from each column, with the p-value of the paired randomisation test.
Last, a verdict per goal of the search with the first encoder: its lexical side against bm25s, its hybrid search against
the better of its two sides.

What was measured is kept in --keep FILE, and not measured again; it knows an encoder by the last part of its path.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from _common import table
from _judged import bm25s_rankings, names_of, passages, reciprocal_rank_fusion, sampled

from ragindex import Index
from ragindex.evaluation import Dataset, load_dataset, paired_differences
from ragindex.evaluation.metrics import ndcg
from ragindex.evaluation.significance import mean_intervals
from ragindex.measure import MODES, fill, rank_documents
from ragindex.types import Mode

_MODES: tuple[Mode, ...] = ("dense", "hybrid")
_LEXICAL_SLACK, _HYBRID_SLACK, _HYBRID_GAIN = 0.02, 0.01, 0.02
Scores = dict[str, list[list[float]]]  # by column: of each set, a value for each query


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--encoder", action="append", metavar="NAME|DIR", help="may be repeated; bundled by default")
    parser.add_argument("--sets", help="names separated by commas; all of DIR by default")
    parser.add_argument("--queries", type=int, help="ask a seeded sample of at most so many queries of each set")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="values of queries, by set and column")
    options = parser.parse_args()
    kept = Kept(options.keep)
    encoders = options.encoder or ["bundled"]
    names = names_of(options.data, options.sets)
    scores: Scores = {}
    sizes = []
    for name in names:
        dataset = sampled(load_dataset(options.data / name), options.queries)
        sizes.append((name, str(len(passages(dataset))), str(len(dataset.queries))))
        for column, values in measured(dataset, encoders, kept).items():
            scores.setdefault(column, []).append(values)
        print(
            f"{name}: {', '.join(f'{column} {mean(groups[-1]):.3f}' for column, groups in scores.items())}", flush=True
        )
    print(f"\n{listed(sizes, scores)}\n\n{differences(scores)}\n")
    print("\n".join(verdicts(names, scores, encoders[0])))


class Kept:
    """Values that were measured, in a JSON file; only in memory without one."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._values: dict[str, list[float]] = {}
        if file is not None and file.exists():
            self._values = json.loads(file.read_text(encoding="utf-8"))

    def columns(self, dataset: Dataset, names: Sequence[str], measure: Callable[[], list[list[float]]]) -> Scores:
        """The values of the columns of a set, measured if one is missing."""
        keys = [f"{dataset.name} {len(dataset.queries)} {name}" for name in names]
        if any(key not in self._values for key in keys):
            self._values.update(zip(keys, measure(), strict=True))
            if self._file is not None:
                self._file.write_text(json.dumps(self._values), encoding="utf-8")
        return {name: [self._values[key]] for key, name in zip(keys, names, strict=True)}


def measured(dataset: Dataset, encoders: Sequence[str], kept: Kept) -> Mapping[str, list[float]]:
    """nDCG@10 of each query, by column."""
    found = kept.columns(dataset, ["bm25s"], lambda: [ndcg(bm25s_rankings(dataset), dataset.qrels).tolist()])
    for encoder in encoders:
        modes: Sequence[Mode] = MODES if encoder == encoders[0] else _MODES
        names = [column_of(encoder, mode) for mode in modes]
        found |= kept.columns(
            dataset, [*names, column_of(encoder, "+ bm25s")], partial(searched, dataset, encoder, modes)
        )
    return {name: values for name, (values,) in found.items()}


def searched(dataset: Dataset, encoder: str, modes: Sequence[Mode]) -> list[list[float]]:
    """nDCG@10 of each query, in each of the modes and with bm25s beside dense search."""
    with tempfile.TemporaryDirectory() as folder, Index.open(Path(folder) / "store", encoder=encoder) as index:
        fill(index, dataset, None)
        found = {mode: rank_documents(index, dataset, mode) for mode in modes}
    ensemble = reciprocal_rank_fusion(found["dense"], bm25s_rankings(dataset))
    return [ndcg(rankings, dataset.qrels).tolist() for rankings in (*found.values(), ensemble)]


def column_of(encoder: str, mode: str) -> str:
    """The heading of figures. Of an encoder's path the last part; lexical search is the same with all of them, but for
    the chunks.
    """
    return mode if mode == "lexical" else f"{Path(encoder).name} {mode}"


def mean(values: Sequence[float]) -> float:
    """Of one set, or of the sets."""
    return sum(values) / len(values)


def listed(sizes: Sequence[tuple[str, str, str]], scores: Scores) -> str:
    """The table: a row a set, and the mean of all."""
    rows = [[*size, *(cell([groups[place]]) for groups in scores.values())] for place, size in enumerate(sizes)]
    rows.append(["mean", "", "", *(cell(groups) for groups in scores.values())])
    return table(["set", "documents", "queries", *scores], rows)


def cell(groups: Sequence[Sequence[float]]) -> str:
    """The mean and its interval."""
    (between,) = mean_intervals([[[value] for value in values] for values in groups])
    return f"{mean([mean(values) for values in groups]):.3f} ({between.low:.3f}–{between.high:.3f})"


def differences(scores: Scores) -> str:
    """How far the first encoder is before or behind every other column, over all sets."""
    columns = list(scores)
    own = [name for name in columns[1 : 1 + len(MODES)] if name != "lexical"]
    rows = []
    for mine in own:
        for theirs in columns:
            if mine == theirs:
                continue
            groups = [[[value] for value in values] for values in scores[mine]]
            against = [[[value] for value in values] for values in scores[theirs]]
            (found,) = paired_differences(against, groups)
            rows.append(
                [
                    f"{mine} − {theirs}",
                    f"{found.difference:+.3f}",
                    f"{found.interval.low:+.3f} – {found.interval.high:+.3f}",
                    f"{found.p_value:.3f}",
                ]
            )
    return table(["mean over sets", "difference", "95 % interval", "p"], rows)


def verdicts(names: Sequence[str], scores: Scores, encoder: str) -> list[str]:
    """One line per goal."""
    of = {column: [mean(values) for values in groups] for column, groups in scores.items()}
    lexical, dense, hybrid = (of[column_of(encoder, mode)] for mode in ("lexical", "dense", "hybrid"))
    gains = [mixed - max(words, vectors) for words, vectors, mixed in zip(lexical, dense, hybrid, strict=True)]
    gain = mean(gains)
    behind = [
        name for name, ours, theirs in zip(names, lexical, of["bm25s"], strict=True) if ours < theirs - _LEXICAL_SLACK
    ]
    worse = [name for name, gain in zip(names, gains, strict=True) if gain < -_HYBRID_SLACK]
    return [
        f"{_word(not behind)}: lexical within {_LEXICAL_SLACK} of bm25s{_except(behind)}",
        f"{_word(len(worse) <= 1)}: hybrid ≥ the better side − {_HYBRID_SLACK}, one exception allowed{_except(worse)}",
        f"{_word(gain >= _HYBRID_GAIN)}: hybrid gains {gain:+.3f} over the better side on average, goal {_HYBRID_GAIN}",
    ]


def _word(met: bool) -> str:
    return "met" if met else "NOT MET"


def _except(names: Sequence[str]) -> str:
    return f"; not on {', '.join(names)}" if names else ""


if __name__ == "__main__":
    main()

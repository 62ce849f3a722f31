"""What `train adapt` does to the bundled encoder on the corpora of judged data sets, whose judgements it never sees.

    python benchmarks/adapt.py --data DIR --sets cisi,cranfield [--encoder NAME] [--steps N] [--queries N] [--keep DIR]

DIR holds data sets in the BEIR layout. For each, the encoder is adapted to corpus.jsonl alone, then both encoders are
measured on the real queries as `ragindex eval` does. Prints a Markdown table: nDCG@10 before and after with the 95 %
interval of the difference (paired bootstrap over queries), what the trial on pseudo-queries said, and a verdict.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from ragindex import Index
from ragindex.adapting import adapt_folder
from ragindex.evaluation import Comparison, Dataset, load_dataset, paired_bootstrap
from ragindex.evaluation.metrics import ndcg
from ragindex.measure import fill, rank_documents
from ragindex.train.adapt import AdaptOptions
from ragindex.types import Mode

_HEADER = "| set | documents | queries | dense before | after | gain (95 %) | hybrid before | after | trial | seconds |"


@dataclass(frozen=True, slots=True)
class Row:
    """One data set."""

    name: str
    dense: Comparison
    hybrid: Comparison
    promoted: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default="adi,chunking-eval,cisi,cranfield,hotpotqa-mini,squad-dev,time")
    parser.add_argument("--encoder", default="bundled")
    parser.add_argument("--steps", type=int, default=AdaptOptions().steps)
    parser.add_argument("--minutes", type=float, default=AdaptOptions().minutes)
    parser.add_argument("--queries", type=int, default=1000, help="Queries of a set at most.")
    parser.add_argument("--keep", type=Path, help="Where the candidates are put.")
    given = parser.parse_args()
    print(_HEADER)
    print("|---|---|---|---|---|---|---|---|---|---|")
    options = AdaptOptions(steps=given.steps, minutes=given.minutes)
    with tempfile.TemporaryDirectory() as scratch:
        home = given.keep or Path(scratch)
        rows = [
            one(given.data / name, home / name, encoder=given.encoder, options=options, queries=given.queries)
            for name in given.sets.split(",")
        ]
    gains = [row.dense.difference for row in rows]
    wins = [row for row in rows if row.promoted]
    losers = [row.name for row in wins if row.dense.difference <= 0]
    print(f"\nmean dense gain {statistics.mean(gains):+.3f} over {len(rows)} sets; promoted {len(wins)} of them")
    print(f"losers promoted: {', '.join(losers) or 'none'}")


def one(directory: Path, output: Path, *, encoder: str, options: AdaptOptions, queries: int) -> Row:
    """Adapt to one data set's corpus and measure both encoders on its queries."""
    dataset = fewer(load_dataset(directory), queries)
    result = adapt_folder(directory, output, encoder=encoder, options=options)
    before, after = measured(dataset, encoder), measured(dataset, str(output))
    modes: tuple[Mode, ...] = ("dense", "hybrid")
    found = {mode: paired_bootstrap(before[mode], after[mode]) for mode in modes}
    means = {mode: (statistics.mean(before[mode]), statistics.mean(after[mode])) for mode in modes}
    interval = found["dense"].interval
    trial = "promoted" if result["promoted"] else "kept the old one"
    print(
        f"| {dataset.name} | {len(dataset.corpus or {})} | {len(dataset.queries)} "
        f"| {means['dense'][0]:.3f} | {means['dense'][1]:.3f} | {interval.low:+.3f} to {interval.high:+.3f} "
        f"| {means['hybrid'][0]:.3f} | {means['hybrid'][1]:.3f} "
        f"| {trial}: {result['before']['ndcg@10']:.3f} → {result['after']['ndcg@10']:.3f} | {result['seconds']:.0f} |",
        flush=True,
    )
    return Row(dataset.name, found["dense"], found["hybrid"], bool(result["promoted"]))


def measured(dataset: Dataset, encoder: str) -> dict[Mode, list[float]]:
    """nDCG@10 of each query, by mode."""
    with tempfile.TemporaryDirectory() as folder, Index.open(Path(folder) / "store", encoder=encoder) as index:
        fill(index, dataset, None)
        return {mode: list(ndcg(rank_documents(index, dataset, mode), dataset.qrels)) for mode in ("dense", "hybrid")}


def fewer(dataset: Dataset, most: int) -> Dataset:
    """The data set with at most so many of its queries."""
    names = sorted(dataset.queries)
    kept = names if len(names) <= most else random.Random(0).sample(names, most)
    return replace(
        dataset,
        queries={name: dataset.queries[name] for name in kept},
        qrels={name: dataset.qrels[name] for name in kept},
    )


if __name__ == "__main__":
    main()

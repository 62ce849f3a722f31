"""What hybrid search gains by reading its best candidates again: nDCG@10 without, with each part of it, and whole.

    python benchmarks/rereading.py --data DIR [--sets adi,cisi] [--queries 300] [--encoder bundled]

Every data set (BEIR layout) is indexed once and asked six times. An encoder with layers reads no sentences and has no
late interaction. Prints nDCG@10 set by set, then the mean and each variant's paired difference from the baseline, which
reads nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import fmean

from _common import table
from _judged import names_of, sampled

from ragindex import Index
from ragindex.evaluation import Dataset, load_dataset, paired_differences
from ragindex.evaluation.metrics import ndcg
from ragindex.measure import fill, rank_documents
from ragindex.search import rereading

_PARTS = {"sentences": "_SENTENCE", "interaction": "_INTERACTION", "order": "_ORDER", "likeness": "_LIKENESS"}
_WHOLE = {constant: getattr(rereading, constant) for constant in _PARTS.values()}
_NOTHING = dict.fromkeys(_WHOLE, 0.0)  # no setting of the product, nor are the others but the last
_VARIANTS = {
    "nothing": _NOTHING,
    **{part: {**_NOTHING, constant: _WHOLE[constant]} for part, constant in _PARTS.items()},
    "all": _WHOLE,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--sets", help="names separated by commas; all of DIR by default")
    parser.add_argument("--queries", type=int, default=300, help="ask a seeded sample of at most so many of each set")
    parser.add_argument("--encoder", default="bundled", metavar="NAME|DIR")
    options = parser.parse_args()
    scores: dict[str, list[list[list[float]]]] = {variant: [] for variant in _VARIANTS}
    rows = []
    for name in names_of(options.data, options.sets):
        dataset = sampled(load_dataset(options.data / name), options.queries)
        found = asked(dataset, options.encoder)
        for variant, values in found.items():
            scores[variant].append([[value] for value in values])
        rows.append([name, *(f"{fmean(values):.3f}" for values in found.values())])
        print(name, flush=True)
    print(table(["set", *_VARIANTS], rows), "\n")
    rows = []
    for variant, groups in scores.items():
        (found_difference,) = paired_differences(scores["nothing"], groups)
        mean = fmean(fmean(value for (value,) in group) for group in groups)
        difference, chance = f"{found_difference.difference:+.4f}", f"{found_difference.p_value:.4f}"
        rows.append([variant, f"{mean:.4f}", difference, chance])
    print(table(["reads", "nDCG@10", "difference", "p"], rows))


def asked(dataset: Dataset, encoder: str) -> dict[str, list[float]]:
    """nDCG@10 of each query in hybrid search, by variant."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, Index.open(Path(folder) / "store", encoder=encoder) as index:
        fill(index, dataset, None)
        for variant, constants in _VARIANTS.items():
            for constant, value in constants.items():
                setattr(rereading, constant, value)
            found[variant] = ndcg(rank_documents(index, dataset, "hybrid"), dataset.qrels).tolist()
    return found


if __name__ == "__main__":
    main()

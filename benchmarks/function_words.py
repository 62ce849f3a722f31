"""What a function word should count in lexical search: nDCG@10 of lexical and hybrid search with several counts.

    python benchmarks/function_words.py --data DIR [--sets adi,cisi] [--queries 300] [--counts 0.4,0.1,0.3,0.5]

Every data set (BEIR layout) is indexed once with the bundled encoder and asked with each count; 1 is the baseline, as
if there were no function words. Prints the means over the sets, and each count's paired difference from the baseline.
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
from ragindex.store import question
from ragindex.types import Mode

_MODES: tuple[Mode, ...] = ("lexical", "hybrid")
_BASELINE = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--sets", help="names separated by commas; all of DIR by default")
    parser.add_argument("--queries", type=int, default=300, help="ask a seeded sample of at most so many of each set")
    parser.add_argument("--counts", default="0.4,0.1,0.3,0.5")
    options = parser.parse_args()
    counts = [_BASELINE, *map(float, options.counts.split(","))]
    scores: dict[tuple[Mode, float], list[list[list[float]]]] = {}
    for name in names_of(options.data, options.sets):
        dataset = sampled(load_dataset(options.data / name), options.queries)
        for key, values in asked(dataset, counts).items():
            scores.setdefault(key, []).append([[value] for value in values])
        print(name, flush=True)
    rows = []
    for (mode, count), groups in scores.items():
        (found,) = paired_differences(scores[mode, _BASELINE], groups)
        mean = fmean(fmean(value for (value,) in group) for group in groups)
        rows.append([f"{mode}, {count:g}", f"{mean:.4f}", f"{found.difference:+.4f}", f"{found.p_value:.4f}"])
    print(table(["search, count", "nDCG@10", "difference", "p"], rows))


def asked(dataset: Dataset, counts: list[float]) -> dict[tuple[Mode, float], list[float]]:
    """nDCG@10 of each query, by mode and count."""
    found: dict[tuple[Mode, float], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, Index.open(Path(folder) / "store", encoder="bundled") as index:
        fill(index, dataset, None)
        for mode in _MODES:
            for count in counts:
                question._COUNTS = count  # no setting of the product
                found[mode, count] = ndcg(rank_documents(index, dataset, mode), dataset.qrels).tolist()
    return found


if __name__ == "__main__":
    main()

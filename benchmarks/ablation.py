"""What each step from a decoder to an encoder is worth, on a small decoder that is trained from nothing.

    python benchmarks/ablation.py --text FILE --pairs FILE --sts FILE --data DIR --sets adi,cisi --output DIR

--text and --pairs may be repeated. The decoder is trained causally on the text; then it is used as an encoder as it is
(last token, mean, mean with two-sided attention), and after each further step: MNTP and SimCSE on the same text,
contrastive training on the pairs. Prints a Markdown table: Spearman correlation on the sentence pairs, nDCG@10 of dense
retrieval on the data sets (BEIR layout), which are chunked and searched as a user's index would be.

A step that is finished in --output is not done again, so the table can be made in several sittings.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from _common import table

from ragindex import Encoder
from ragindex.config import Settings
from ragindex.evaluation import load_dataset
from ragindex.evaluation.sts import load_sts
from ragindex.measure import SentencePairs, Work, measure
from ragindex.train.clm import Architecture, CausalOptions, TrainedDecoder, causal_training, fresh_decoder
from ragindex.train.contrastive import ContrastiveOptions, ContrastiveTraining
from ragindex.train.data import read_examples
from ragindex.train.data.texts import Texts, read_texts
from ragindex.train.language import LanguageModel
from ragindex.train.mntp import MaskedEncoder, MaskedOptions, masked_training
from ragindex.train.model import TrainableEncoder
from ragindex.train.objective import Objective
from ragindex.train.prediction import PredictionOptions
from ragindex.train.schedule import LoopSettings
from ragindex.train.session import Plan, Product, run_objective
from ragindex.train.simcse import SimCseOptions, SimCseTraining, text_sentences
from ragindex.train.vocabulary import VocabularyOptions, train_tokenizer


@dataclass(frozen=True, slots=True)
class Stage:
    """A row of the table: its name, and how the encoder is loaded."""

    name: str
    encoder: Encoder


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    texts = sampled(options.text, options.characters, options.seed)
    print(f"{len(texts):,} texts, {sum(map(len, texts)):,} characters", flush=True)
    decoder = pretrain(texts, options)
    untrained = [
        Stage("causal, last token", Encoder.load(decoder, attention="causal", pooling="last")),
        Stage("causal, mean", Encoder.load(decoder, attention="causal", pooling="mean")),
        Stage("bidirectional, mean", Encoder.load(decoder, attention="bidirectional", pooling="mean")),
    ]
    masked = unmask(decoder, texts, options)
    unsupervised = contrast_views(masked, texts, options)
    trained = [Stage("+ MNTP", Encoder.load(masked)), Stage("+ SimCSE", Encoder.load(unsupervised))]
    if options.pairs:
        trained.append(Stage("+ contrastive", Encoder.load(contrast_pairs(unsupervised, options))))
    report([*untrained, *trained], options)


def pretrain(texts: Texts, options: argparse.Namespace) -> Path:
    """The decoder."""
    output = Path(options.output / "1-clm")
    if _is_finished(output):
        return output
    architecture = Architecture(options.layers, options.hidden, options.hidden // 64)
    words = train_tokenizer(texts, VocabularyOptions(size=options.vocabulary, lowercase=True))
    model = fresh_decoder(architecture, words, positions=options.block, seed=options.seed)
    each_step = PredictionOptions(tokens=options.tokens, chunk=options.tokens, seed=options.seed)
    objective = causal_training(model, texts, CausalOptions(block=options.block, steps=each_step))
    return _run(objective, TrainedDecoder(model), output, options.clm, 2e-3, options)


def unmask(decoder: Path, texts: Texts, options: argparse.Namespace) -> Path:
    """Masked next-token prediction on the same text."""
    output = Path(options.output / "2-mntp")
    if _is_finished(output):
        return output
    model = LanguageModel.open(decoder, attention="bidirectional")
    each_step = PredictionOptions(tokens=options.tokens, chunk=options.tokens, seed=options.seed)
    settings = MaskedOptions(block=options.block, layout=options.layout, rate=options.mask_rate, steps=each_step)
    objective = masked_training(model, texts, settings)
    return _run(objective, MaskedEncoder(model, output), output, options.mntp, options.mntp_rate, options)


def contrast_views(encoder: Path, texts: Texts, options: argparse.Namespace) -> Path:
    """SimCSE on the sentences of the text."""
    output = Path(options.output / "3-simcse")
    if _is_finished(output):
        return output
    model = TrainableEncoder.open(encoder, dropout=options.dropout)
    objective = SimCseTraining(
        model,
        text_sentences(texts),
        SimCseOptions(batch=64, max_tokens=64, seed=options.seed),
        sts=load_sts(options.sts),
    )
    return _run(objective, model, output, options.simcse, options.simcse_rate, options)


def contrast_pairs(encoder: Path, options: argparse.Namespace) -> Path:
    """Supervised training on the pairs."""
    output = Path(options.output / "4-contrastive")
    if _is_finished(output):
        return output
    examples = [example for file in options.pairs for example in read_examples(file)]
    random.Random(options.seed).shuffle(examples)
    model = TrainableEncoder.open(encoder)
    settings = ContrastiveOptions(batch=64, document_tokens=128, seed=options.seed)
    objective = ContrastiveTraining(model, examples[500:], settings, held_out=examples[:500])
    return _run(objective, model, output, options.contrastive, options.contrastive_rate, options)


def report(stages: Sequence[Stage], options: argparse.Namespace) -> None:
    """Measure each stage and print the table."""
    datasets = [load_dataset(options.data / name) for name in options.sets.split(",")]
    work = Work(datasets=datasets, sts=[SentencePairs(options.sts.stem, load_sts(options.sts))], modes=("dense",))
    settings = Settings(chunk_tokens=min(256, options.block))
    rows = []
    for stage in stages:
        found = measure(work, encoder=stage.encoder, settings=settings).report
        scores = [each.modes["dense"].ndcg_at_10 for each in found.datasets]
        correlation = found.sts[0].correlations["spearman"].value
        figures = (correlation, statistics.mean(scores), *scores)
        rows.append((stage.name, *(f"{figure:.3f}" for figure in figures)))
        print(rows[-1], flush=True)
    print(table(("encoder", options.sts.stem, "mean nDCG@10", *(each.name for each in datasets)), rows))


def sampled(files: Sequence[Path], characters: int, seed: int) -> Texts:
    """At most so many characters of each file, in random order."""

    def chosen() -> Iterator[str]:
        for file in files:
            texts = list(read_texts([file]))
            random.Random(seed).shuffle(texts)
            room = characters
            for text in texts:
                if room <= 0:
                    break
                room -= len(text)
                yield text

    return Texts.of(chosen())


def _run(
    objective: Objective, product: Product, output: Path, minutes: float, rate: float, options: argparse.Namespace
) -> Path:
    settings = LoopSettings(minutes=minutes, rate=rate, evaluations=4, seed=options.seed)
    summary = run_objective(objective, product, Plan(output.name[2:], output, settings, {}))
    before = {name: round(value, 4) for name, value in summary.before.items()}
    after = {name: round(value, 4) for name, value in summary.after.items()}
    print(f"{output.name}: {summary.steps} steps in {summary.seconds:.0f} s, {before} → {after}", flush=True)
    return output


def _is_finished(output: Path) -> bool:
    return (output / "run" / "finished.json").is_file()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, action="append", required=True, metavar="FILE")
    parser.add_argument("--pairs", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--sts", type=Path, required=True, metavar="FILE")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--sets", required=True, help="names of data sets in --data, separated by commas")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--characters", type=int, default=10_000_000, help="of each text file at most")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256, help="length of a state, a multiple of 64")
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--block", type=int, default=128, help="tokens read at once")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens in a step")
    parser.add_argument("--layout", choices=["packed", "apart"], default="packed", help="of rows in MNTP")
    parser.add_argument("--mask-rate", type=float, default=0.2)
    parser.add_argument("--dropout", type=float, default=0.3, help="of the attention in SimCSE")
    for name, minutes in (("clm", 36.0), ("mntp", 14.0), ("simcse", 6.0), ("contrastive", 8.0)):
        parser.add_argument(f"--{name}", type=float, default=minutes, metavar="MINUTES")
    for name, rate in (("mntp", 1e-3), ("simcse", 3e-5), ("contrastive", 3e-4)):
        parser.add_argument(f"--{name}-rate", type=float, default=rate, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=7)
    return parser


if __name__ == "__main__":
    main()

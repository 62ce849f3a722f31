"""Adaptation: an encoder learns a user's own corpus, and is proven better on it before anybody uses it.

1. Documents (parts of them, where they are long) are split: most are learnt from, the others only asked about.
2. The ones become pairs (`ragindex.train.data.pairs`), with hard negatives among each other that the present encoder
   finds (`ragindex.train.mining`); the others become questions for two trials (`ragindex.train.trial`), one to choose
   between candidates, one for the verdict.
3. Candidates: the present encoder with its token weights moved towards the corpus's own inverse document frequencies
   (nothing is trained), and what contrastive training makes of the best of these. The old vectors serve as teacher, so
   that what was known before is not forgotten.
4. The candidate that does best in the first trial is judged in the second. Judgements of the user's own, if there are
   any, are a third trial that must be passed as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from ragindex.encoder import Encoder, find_checkpoint
from ragindex.encoder.checkpoint import write_config
from ragindex.errors import TrainingError
from ragindex.evaluation import Dataset
from ragindex.train.card import write_card
from ragindex.train.contrastive import ContrastiveOptions, ContrastiveTraining
from ragindex.train.data.dedupe import deduplicate
from ragindex.train.data.examples import Example
from ragindex.train.data.leakage import EvaluationGuard
from ragindex.train.data.pairs import document_pairs
from ragindex.train.data.passages import Material
from ragindex.train.embedder import Embedder
from ragindex.train.losses import InfoNCE
from ragindex.train.mining import MiningOptions, mine
from ragindex.train.model import TrainableEncoder
from ragindex.train.objective import Reporter, Silent
from ragindex.train.preparing import Lora
from ragindex.train.proving import Corpus, sampled
from ragindex.train.schedule import LoopSettings
from ragindex.train.session import Plan, Summary, run_objective
from ragindex.train.sources import PassagePool, positives_of
from ragindex.train.token_weights import shift_towards
from ragindex.train.trial import FEWEST, Trial, Verdict, judge
from ragindex.types import Document

__all__ = ["AdaptOptions", "Adaptation", "adapt"]

_FEWEST_PAIRS = 64
_LARGE = 100_000_000  # parameters above which an adapter is trained in place of everything
_POOL = 1000  # pairs below which no negatives are mined: of few texts, the nearest are mostly answers as well
_CHOICE = 3000  # passages that compete in the trial by which token weights are chosen
_NAMES = {"pseudo": "held-out questions from the corpus", "judged": "the judged questions"}
_TABLE_FACTOR = 10.0


@dataclass(frozen=True, slots=True)
class AdaptOptions:
    """How long, on how much, and how the proof is made.

    minutes, steps: length of the training at most. pairs: at most so many are learnt from. held_out: share of the
    documents that are asked about. questions: of each trial at most. competing: passages of a trial at most. shifts:
    exponents on inverse document frequency that are tried. rate: peak learning rate of the layers; token rows learn ten
    times as fast. negatives: hard ones of a pair, 0 for none. share: weight of the contrastive loss beside the one that
    keeps the old vectors. significance: p-value below which a difference counts.
    """

    minutes: float = 10.0
    steps: int = 200
    pairs: int = 50_000
    held_out: float = 0.3
    questions: int = 400
    competing: int = 5000
    shifts: tuple[float, ...] = (0.25, 0.5, 1.0)
    rate: float = 3e-4
    batch: int = 128
    negatives: int = 2
    temperature: float = 0.05
    share: float = 0.5
    document_tokens: int = 192
    significance: float = 0.05
    seed: int = 7


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What came of it. encoder: directory of the candidate, whether it won or not; verdicts: by trial, "pseudo" and,
    with judgements, "judged"; shift: exponent by which token weights were moved; pairs: learnt from; leaked: pairs left
    out because a trial asks the same; seconds: of everything.
    """

    encoder: Path
    won: bool
    reason: str
    verdicts: Mapping[str, Verdict]
    shift: float
    pairs: int
    seconds: float
    leaked: int
    summary: Summary


def adapt(
    documents: Iterable[Document],
    encoder: str,
    output: Path,
    *,
    options: AdaptOptions | None = None,
    judged: Dataset | None = None,
    reporter: Reporter | None = None,
) -> Adaptation:
    """Adapt the encoder called `encoder` to `documents`; the candidate is written into `output`.

    judged: queries and judgements whose document ids are the paths of `documents`; they are never trained on. Raises
    TrainingError when there is too little text to learn from or to prove anything with.
    """
    return _Adapter(encoder, output, options or AdaptOptions(), reporter or Silent()).execute(list(documents), judged)


class _Pairs(NamedTuple):
    examples: list[Example]
    leaked: int


class _Adapter:
    def __init__(self, encoder: str, output: Path, options: AdaptOptions, reporter: Reporter) -> None:
        self._name, self._output, self._options, self._reporter = encoder, output, options, reporter
        self._present = Encoder.load(encoder)
        self._began = time.monotonic()

    def execute(self, documents: list[Document], judged: Dataset | None) -> Adaptation:
        options = self._options
        corpus = Corpus(documents, self._present, competing=options.competing, seed=options.seed)
        split = corpus.split(held_out=options.held_out)
        choice = corpus.questions(split.choosing, most=options.questions)
        proof = corpus.questions(split.proving, most=options.questions)
        # Parts of one document share its title, so that even a pseudo-query may stand among the pairs.
        asked = [item.query for item in (*choice, *proof)]
        asked += judged.queries.values() if judged is not None else ()
        pairs = self._examples(split.learnt, EvaluationGuard.from_queries(asked))
        trials = {"pseudo": corpus.trial(proof)}
        if judged is not None:
            trials["judged"] = corpus.judged_trial(judged)
        self._reporter.note(
            f"{len(pairs.examples)} pairs from {len(split.learnt)} documents; {len(trials['pseudo'].questions)} "
            f"questions from {len(split.proving)} others are the proof."
        )
        model = self._open()
        shift = 0.0
        if len(choice) >= FEWEST:  # with fewer, the token weights stay what they are
            shift = shift_towards(corpus.crowd, model, corpus.trial(choice, competing=_CHOICE), shifts=options.shifts)
        summary = self._train(model, self._mined(pairs.examples))
        return self._judged(trials, shift, pairs, summary)

    def _judged(self, trials: Mapping[str, Trial], shift: float, pairs: _Pairs, summary: Summary) -> Adaptation:
        candidate = Encoder.load(self._output)
        trust = self._present.config.trust
        verdicts = {
            name: judge(
                trial,
                trial.measure(self._present, trust=trust),
                trial.measure(candidate, trust=trust),
                significance=self._options.significance,
            )
            for name, trial in trials.items()
        }
        _note_verdict(self._output, verdicts["pseudo"])
        lost = [f"on {_NAMES[name]} {verdict.reason}" for name, verdict in verdicts.items() if not verdict.won]
        won = [f"on {_NAMES[name]} {verdict.reason}" for name, verdict in verdicts.items() if verdict.won]
        return Adaptation(
            encoder=self._output,
            won=not lost,
            reason="; ".join(lost or won),
            verdicts=verdicts,
            shift=shift,
            pairs=len(pairs.examples),
            seconds=time.monotonic() - self._began,
            leaked=pairs.leaked,
            summary=summary,
        )

    def _open(self) -> TrainableEncoder:
        torch.manual_seed(self._options.seed)  # a new adapter begins at random
        model = TrainableEncoder.open(self._name)
        if sum(parameter.numel() for parameter in model.parameters()) > _LARGE:
            model = TrainableEncoder.open(self._name, lora=Lora())
        model.leave_out_idle_layers()
        return model

    def _examples(self, materials: Sequence[Material], guard: EvaluationGuard) -> _Pairs:
        """Pairs without repeats and without anything that a trial asks; and how many of those there were."""
        options = self._options
        made = [pair for material in materials for pair in document_pairs(material, seed=options.seed)]
        leaks = {leak[0] for leak in guard.leaks(made)}
        clean = [pair for place, pair in enumerate(made) if place not in leaks]
        examples = deduplicate(sampled(clean, options.pairs, options.seed))
        if len(examples) < _FEWEST_PAIRS:
            raise TrainingError(
                f"Only {len(examples)} pairs could be made from {len(materials)} documents, at least {_FEWEST_PAIRS} "
                "are needed; give more text."
            )
        return _Pairs(examples, len(leaks))

    def _mined(self, examples: Sequence[Example]) -> Sequence[Example]:
        """The examples, each with texts of others that look like its answer.

        Drawn from the hundred nearest, the harder the likelier: in a corpus of its own kind the very nearest are often
        answers as well.
        """
        options = self._options
        if not options.negatives or len(examples) < _POOL:
            return examples
        pool = PassagePool(positives_of(examples), Embedder(self._present))
        wanted = MiningOptions(negatives=options.negatives, temperature=1.0, lexical=False, seed=options.seed)
        found = [mined.example for mined in mine(examples, pool, encoder=self._present, options=wanted)]
        hard = sum(len(example.negatives) for example in found)
        self._reporter.note(f"{hard} hard negatives for {sum(bool(item.negatives) for item in found)} of the pairs.")
        return found

    def _train(self, model: TrainableEncoder, examples: Sequence[Example]) -> Summary:
        options = self._options
        objective = ContrastiveTraining(
            model,
            examples,
            ContrastiveOptions(
                batch=min(options.batch, max(2, len(examples) // 4)),
                negatives=options.negatives,
                document_tokens=options.document_tokens,
                loss=InfoNCE(temperature=options.temperature, directions=("q-d", "d-q"), partition="separate"),
                share=options.share,
                teacher_weight=1.0,
                balance=0.5,
                table_factor=10.0,
                seed=options.seed,
            ),
            teacher=self._present,
        )
        plan = Plan(
            command="adapt",
            output=self._output,
            settings=LoopSettings(
                steps=options.steps,
                minutes=options.minutes,
                rate=options.rate,
                warmup=0.1,
                evaluations=1,
                seed=options.seed,
            ),
            options={
                "encoder": self._present.fingerprint,
                "pairs": len(examples),
                "negatives": options.negatives,
                "share": options.share,
            },
        )
        return run_objective(objective, model, plan, reporter=self._reporter)


def _note_verdict(directory: Path, verdict: Verdict) -> None:
    """Put what the trial showed into the candidate's card."""
    config = find_checkpoint(str(directory)).config
    entry = {
        **config.card["adapt"],
        "questions": verdict.questions,
        "before": dict(verdict.before),
        "after": dict(verdict.after),
        "BM25": round(verdict.lexical, 4),
        "p_value": verdict.gain.p_value,
        "won": verdict.won,
    }
    write_config(directory, replace(config, card={**config.card, "adapt": entry}))
    write_card(directory)

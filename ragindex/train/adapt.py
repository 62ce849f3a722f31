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

from ragindex.encoder import Encoder, find_checkpoint
from ragindex.encoder.checkpoint import write_config
from ragindex.errors import TrainingError
from ragindex.evaluation import Dataset
from ragindex.train.card import write_card
from ragindex.train.data.dedupe import deduplicate
from ragindex.train.data.examples import Example
from ragindex.train.data.leakage import EvaluationGuard
from ragindex.train.data.pairs import document_pairs
from ragindex.train.data.passages import Material
from ragindex.train.embedder import Embedder
from ragindex.train.lesson import AdaptOptions, Lesson, give_out, open_student
from ragindex.train.mining import MiningOptions, mine
from ragindex.train.model import TrainableEncoder
from ragindex.train.objective import Reporter, Silent
from ragindex.train.proving import Corpus, sampled
from ragindex.train.session import Summary
from ragindex.train.sharding import Footprint
from ragindex.train.sources import PassagePool, positives_of
from ragindex.train.token_weights import shift_towards
from ragindex.train.trial import FEWEST, Trial, Verdict, judge
from ragindex.types import Document

__all__ = ["AdaptOptions", "Adaptation", "adapt"]

_FEWEST_PAIRS = 64
_POOL = 1000  # pairs below which no negatives are mined: of few texts, the nearest are mostly answers as well
_CHOICE = 3000  # passages that compete in the trial by which token weights are chosen
_NAMES = {"pseudo": "held-out questions from the corpus", "judged": "the judged questions"}


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
    footprint: Footprint | None = None,
) -> Adaptation:
    """Adapt the encoder called `encoder` to `documents`; the candidate is written into `output`.

    judged: queries and judgements whose document ids are the paths of `documents`; they are never trained on. Of
    several processes the main one calls this, the others `ragindex.train.lesson.assist`. Raises TrainingError when
    there is too little text to learn from or to prove anything with.
    """
    adapter = _Adapter(
        encoder, output, options or AdaptOptions(), reporter=reporter or Silent(), footprint=footprint or Footprint()
    )
    return adapter.execute(list(documents), judged)


class _Pairs(NamedTuple):
    examples: list[Example]
    leaked: int


class _Adapter:
    def __init__(
        self, encoder: str, output: Path, options: AdaptOptions, *, reporter: Reporter, footprint: Footprint
    ) -> None:
        self._name, self._output, self._options = encoder, output, options
        self._reporter, self._footprint = reporter, footprint
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
        model = open_student(self._name, seed=options.seed)
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
        weights = None if model.log_weights is None else model.log_weights.detach().cpu().numpy()
        lesson = Lesson(self._name, self._output, examples, weights, self._options)
        return give_out(lesson, model, self._present, reporter=self._reporter, footprint=self._footprint)


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

"""The proof: a retrieval test made from a corpus alone, or from a user's own judgements, that compares encoders.

Pseudo-queries are cut from documents that training never sees: titles, headings, first sentences, sentences out of
their context, salient words. A query's answer is the passage that it was cut out of, without the query in it, so that
looking for the same words is not enough. Other passages of the same document do not compete: they may answer as well.
What competes are the passages of the whole corpus.

Dense, lexical and hybrid rankings come from the same BM25 and the same fusion that serve users.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ragindex.encoder import TextEncoder
from ragindex.errors import TrainingError
from ragindex.evaluation import Comparison, paired_bootstrap
from ragindex.search.fusion import HEAD
from ragindex.search.rereading import Passage, Reading, fuse_and_read, read_passages
from ragindex.search.sentences import Sentences
from ragindex.store.rows import TextEntry
from ragindex.store.tantivy_index import TantivyIndex
from ragindex.store.vector_index import Scored

__all__ = ["FEWEST", "Question", "Scoreboard", "Text", "Trial", "Verdict", "judge"]

_DEPTH = 10  # of nDCG
_BATCH = 256  # queries scored at a time
_SLACK = 0.005  # nDCG@10 that search as a whole may lose: less is noise
FEWEST = 20  # questions below which no difference could be told from chance


@dataclass(frozen=True, slots=True)
class Text:
    """A passage that competes. unit: number of what is ranked, a passage or a document; document: number of the
    document that it comes from.
    """

    text: str
    title: str
    unit: int
    document: int


@dataclass(frozen=True, slots=True)
class Question:
    """A query, the gain of each unit that answers it, and the document whose other passages do not compete (-1: none
    is left out).
    """

    text: str
    gains: Mapping[int, float]
    document: int = -1
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Scoreboard:
    """What an encoder reached: nDCG@10 of each question, float64 (n,), by its vectors alone and fused with BM25."""

    dense: np.ndarray
    hybrid: np.ndarray


@dataclass(frozen=True, slots=True)
class Verdict:
    """The comparison of a candidate with the encoder before it and with BM25.

    won: the candidate's vectors beat the old ones, and search with it beats BM25 alone, both beyond chance, and search
    as a whole is not worse than before; reason: a sentence that says so. Figures are means of nDCG@10.
    """

    won: bool
    reason: str
    questions: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    lexical: float
    gain: Comparison
    over_lexical: Comparison
    kinds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class Trial:
    """Questions and the texts that compete for them. BM25 is asked once, encoders may come one after the other."""

    def __init__(self, texts: Sequence[Text], questions: Sequence[Question]) -> None:
        if len(questions) < FEWEST:
            raise TrainingError(
                f"Only {len(questions)} held-out questions could be made, at least {FEWEST} are needed to prove "
                "anything; give more text, or judged questions of your own."
            )
        self._texts, self.questions = texts, questions
        self._units = np.array([text.unit for text in texts])
        self._documents = np.array([text.document for text in texts])
        self._words = TantivyIndex()
        self._words.add([TextEntry(place, item.text, item.title, (), "") for place, item in enumerate(texts)])
        self._lexical = self._ask_lexical()
        self._ceilings = [self._words.ceiling(question.text) for question in questions]

    def lexical(self) -> np.ndarray:
        """nDCG@10 of each question by BM25 alone."""
        return np.array([self._gain(place, found) for place, found in enumerate(self._lexical)])

    def measure(self, encoder: TextEncoder, *, trust: float) -> Scoreboard:
        """How an encoder does; trust: its weight in the fusion."""
        texts = encoder.encode_documents(
            [item.text for item in self._texts], titles=[item.title for item in self._texts]
        )
        queries = encoder.encode_queries([question.text for question in self.questions])
        dense = np.empty(len(self.questions))
        hybrid = np.empty(len(self.questions))
        known = Sentences(encoder.reader) if encoder.reader is not None else None
        for start in range(0, len(queries), _BATCH):
            scores = queries[start : start + _BATCH] @ texts.T
            for place, row in enumerate(scores, start=start):
                row[self._barred(place)] = -np.inf
                found = _best(row)
                dense[place] = self._gain(place, found)
                read = partial(self._read, place, queries[place], texts, known)
                fused, _ = fuse_and_read(found, self._lexical[place], read, ceiling=self._ceilings[place], trust=trust)
                hybrid[place] = self._gain(place, Scored(fused.ids, fused.scores))
        return Scoreboard(dense, hybrid)

    def _read(
        self, place: int, vector: np.ndarray, vectors: np.ndarray, known: Sentences | None, ids: np.ndarray
    ) -> Reading:
        return read_passages(
            [
                Passage(number, self._texts[number].title, self._texts[number].text, vectors[number])
                for number in ids.tolist()
            ],
            query=self.questions[place].text,
            vector=vector,
            words=self._words,
            known=known,
        )

    def _ask_lexical(self) -> list[Scored]:
        found = []
        for place, question in enumerate(self.questions):
            excluded = np.flatnonzero(self._barred(place)).astype(np.int64)
            found.append(self._words.search(question.text, HEAD, excluded=excluded if len(excluded) else None))
        return found

    def _barred(self, place: int) -> np.ndarray:
        """Which texts do not compete for a question, bool (texts,)."""
        question = self.questions[place]
        if question.document < 0:
            return np.zeros(len(self._texts), dtype=bool)
        own = np.isin(self._units, list(question.gains))
        return np.asarray((self._documents == question.document) & ~own)

    def _gain(self, place: int, found: Scored) -> float:
        """nDCG@10 with linear gains (Järvelin and Kekäläinen, TOIS 20(4), 2002), of units by their best text."""
        gains = self.questions[place].gains
        ranked = list(dict.fromkeys(int(unit) for unit in self._units[found.ids]))[:_DEPTH]
        discounts = 1 / np.log2(np.arange(2, _DEPTH + 2))
        reached = sum(gains.get(unit, 0.0) * discounts[rank] for rank, unit in enumerate(ranked))
        ideal = sorted(gains.values(), reverse=True)[:_DEPTH]
        return float(reached / max(1e-12, sum(gain * discounts[rank] for rank, gain in enumerate(ideal))))


def judge(trial: Trial, before: Scoreboard, after: Scoreboard, *, significance: float = 0.05) -> Verdict:
    """Whether the candidate with scores `after` may take the place of the encoder with scores `before`.

    Paired bootstrap over questions, see `ragindex.evaluation.paired_bootstrap`.
    """
    lexical = trial.lexical()
    gain = paired_bootstrap(before.dense, after.dense)
    over = paired_bootstrap(lexical, after.hybrid)
    whole = paired_bootstrap(before.hybrid, after.hybrid)
    reasons = []
    if not _beats(gain, significance):
        reasons.append(f"its vectors do not beat the present encoder's ({_told(before.dense, after.dense, gain)})")
    if not _beats(over, significance):
        reasons.append(f"search with it does not beat BM25 ({_told(lexical, after.hybrid, over)})")
    if whole.difference < -_SLACK:
        reasons.append(f"search as a whole gets worse ({_told(before.hybrid, after.hybrid, whole)})")
    return Verdict(
        won=not reasons,
        reason="; ".join(reasons)
        or f"it beats the present encoder ({_told(before.dense, after.dense, gain)}) and BM25",
        questions=len(trial.questions),
        before={"dense": float(before.dense.mean()), "hybrid": float(before.hybrid.mean())},
        after={"dense": float(after.dense.mean()), "hybrid": float(after.hybrid.mean())},
        lexical=float(lexical.mean()),
        gain=gain,
        over_lexical=over,
        kinds=_by_kind(trial.questions, lexical, before, after),
    )


def _beats(comparison: Comparison, significance: float) -> bool:
    return comparison.difference > 0 and comparison.p_value < significance


def _told(before: np.ndarray, after: np.ndarray, comparison: Comparison) -> str:
    return f"nDCG@10 {before.mean():.3f} → {after.mean():.3f}, p = {comparison.p_value:.3f}"


def _by_kind(
    questions: Sequence[Question], lexical: np.ndarray, before: Scoreboard, after: Scoreboard
) -> dict[str, dict[str, float]]:
    result = {}
    for kind in sorted({question.kind for question in questions}):
        rows = [place for place, question in enumerate(questions) if question.kind == kind]
        result[kind] = {
            "questions": len(rows),
            "before": float(before.dense[rows].mean()),
            "after": float(after.dense[rows].mean()),
            "lexical": float(lexical[rows].mean()),
        }
    return result


def _best(scores: np.ndarray) -> Scored:
    """The `HEAD` best entries of a row of scores, best first, ties by place; what is barred is never among them."""
    count = min(HEAD, int(np.isfinite(scores).sum()))
    ids = np.argpartition(-scores, count - 1)[:count] if count < len(scores) else np.arange(len(scores))
    order = np.lexsort((ids, -scores[ids]))[:count]
    ids = ids[order].astype(np.int64)
    return Scored(ids, scores[ids].astype(np.float32))


def unique_texts(texts: Iterable[Text]) -> list[Text]:
    """Without those whose title and text were seen before."""
    seen: set[tuple[str, str]] = set()
    result = []
    for item in texts:
        if (item.title, item.text) not in seen:
            seen.add((item.title, item.text))
            result.append(item)
    return result

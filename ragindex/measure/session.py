"""All that one run of `ragindex eval` measures: data sets and sentence pairs, with one encoder or with two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ragindex.config import Settings
from ragindex.errors import UsageError
from ragindex.evaluation import Dataset
from ragindex.evaluation.metrics import Rankings, measured
from ragindex.evaluation.report import (
    EvalReport,
    Evaluation,
    MeanReport,
    ModeComparison,
    PerQuery,
    StsReport,
    compare_modes,
    compare_sts,
    mean_sts,
    summarise,
)
from ragindex.evaluation.sts import Correlation, StsPairs, correlate
from ragindex.measure.retrieval import MODES, Answered, answer
from ragindex.measure.sentences import cosines
from ragindex.measure.watch import Unwatched, Watch
from ragindex.types import Mode

if TYPE_CHECKING:
    from ragindex.encoder import Encoder

__all__ = ["Answers", "Measured", "SentencePairs", "Work", "measure"]


@dataclass(frozen=True, slots=True)
class SentencePairs:
    """A file of sentence pairs under the name that reports give it."""

    name: str
    pairs: StsPairs


@dataclass(frozen=True, slots=True)
class Work:
    """What to measure. instruction: of queries, and of both sides of sentence pairs; None is the encoder's default
    for queries and none for pairs. length_bias: also the diagnostics of `ragindex.evaluation.length`.
    """

    datasets: Sequence[Dataset] = ()
    sts: Sequence[SentencePairs] = ()
    modes: Sequence[Mode] = MODES
    instruction: str | None = None
    length_bias: bool = False


@dataclass(frozen=True, slots=True)
class Answers:
    """What one encoder answered to one data set in one mode."""

    dataset: str
    encoder: str
    mode: Mode
    rankings: Rankings


@dataclass(frozen=True, slots=True)
class Measured:
    """The report, and the rankings it was made from."""

    report: Evaluation
    answers: tuple[Answers, ...]


def measure(
    work: Work,
    *,
    encoder: Encoder,
    against: Encoder | None = None,
    settings: Settings | None = None,
    watch: Watch | None = None,
) -> Measured:
    """Measure an encoder, and how much better it is than `against`.

    Each encoder gets a store of its own, with chunks cut by its own tokenizer, as a user of it would have. Of
    `settings`, the file patterns are left aside: every document of a data set counts. Raises UsageError when both
    encoders are the same, and what `Index` raises.
    """
    if against is not None and against.fingerprint == encoder.fingerprint:
        raise UsageError(
            f"{encoder.name!r} and {against.name!r} are the same encoder ({encoder.fingerprint[:8]}); "
            "a comparison needs two."
        )
    shown = watch or Unwatched()
    chosen = replace(settings or Settings(), include=(), exclude=())
    both = [encoder] if against is None else [encoder, against]
    found = [
        [
            answer(
                dataset,
                encoder=each,
                modes=work.modes,
                settings=chosen,
                watch=shown,
                instruction=work.instruction,
                length_bias=work.length_bias,
            )
            for each in both
        ]
        for dataset in work.datasets
    ]
    correlations = [[_correlate(each, part, seed, work, shown) for each in both] for seed, part in enumerate(work.sts)]
    names = [each.name for each in both]
    answers = (
        Answers(dataset.name, name, mode, rankings)
        for dataset, sides in zip(work.datasets, found, strict=True)
        for name, side in zip(names, sides, strict=True)
        for mode, rankings in side.rankings.items()
    )
    return Measured(_report(work, names, found, correlations), tuple(answers))


def _correlate(encoder: Encoder, part: SentencePairs, seed: int, work: Work, watch: Watch) -> Mapping[str, Correlation]:
    progress = watch.stage(f"{part.name}, {encoder.name}: encoding", "batches")
    predicted = cosines(encoder, part.pairs, progress=progress, instruction=work.instruction)
    return correlate(part.pairs.scores, predicted, seed=seed)


def _report(
    work: Work,
    names: Sequence[str],
    found: Sequence[Sequence[Answered]],
    correlations: Sequence[Sequence[Mapping[str, Correlation]]],
) -> Evaluation:
    values: list[list[PerQuery]] = [
        [{str(mode): measured(side.rankings[mode], dataset.qrels) for mode in work.modes} for side in sides]
        for dataset, sides in zip(work.datasets, found, strict=True)
    ]
    datasets = tuple(
        EvalReport(
            dataset=dataset.name,
            documents=sides[0].documents,
            queries=len(dataset.queries),
            modes=summarise([own[0]]),
            encoder=names[0],
            length=sides[0].length,
            comparison=_comparison(names, [own], sides),
        )
        for dataset, sides, own in zip(work.datasets, found, values, strict=True)
    )
    sts = tuple(
        _sts_report(names, part.name, len(part.pairs.scores), sides)
        for part, sides in zip(work.sts, correlations, strict=True)
    )
    mean = None
    if len(datasets) > 1:
        mean = MeanReport(len(datasets), summarise([own[0] for own in values]), _comparison(names, values, ()))
    mean_pairs = None
    if len(sts) > 1:
        averaged = [mean_sts([sides[place] for sides in correlations]) for place in range(len(names))]
        mean_pairs = _sts_report(names, "mean", sum(each.pairs for each in sts), averaged)
    return Evaluation(names[0], datasets, sts, mean, mean_pairs)


def _comparison(
    names: Sequence[str], groups: Sequence[Sequence[PerQuery]], sides: Sequence[Answered]
) -> ModeComparison | None:
    """Of the first encoder with the second; groups: for each data set the values of each encoder."""
    if len(names) < 2:
        return None
    ours, others = ([group[place] for group in groups] for place in range(2))
    return ModeComparison(
        against=names[1],
        modes=summarise(others),
        differences=compare_modes(ours, others),
        length=sides[1].length if sides else None,
    )


def _sts_report(
    names: Sequence[str], dataset: str, pairs: int, sides: Sequence[Mapping[str, Correlation]]
) -> StsReport:
    return StsReport(
        dataset=dataset,
        pairs=pairs,
        correlations={name: each.estimate() for name, each in sides[0].items()},
        encoder=names[0],
        comparison=compare_sts(*sides, against=names[1]) if len(names) > 1 else None,
    )

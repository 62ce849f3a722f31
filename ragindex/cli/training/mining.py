"""`train mine`: hard negatives for pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ragindex.cli.options import collection_option, json_option, open_index, store_given
from ragindex.cli.progress import progress_bar
from ragindex.cli.terminal import emit, emit_json, note
from ragindex.ingest.progress import Silent

if TYPE_CHECKING:
    from ragindex.encoder import Encoder
    from ragindex.train.data.examples import Example
    from ragindex.train.mining import Drop, Mined, MiningOptions, MiningReport
    from ragindex.train.mining_rules import ScoreKind
    from ragindex.train.sources import Source

__all__ = ["command"]

_REASONS: Mapping[Drop, str] = {
    "margin": "too near to the query",
    "guide": "by the guide",
    "positive": "a positive of the query, or part of one",
    "document": "of the positive's document",
}


@click.command("mine", short_help="Find hard negatives for pairs.")
@click.argument("examples", metavar="EXAMPLES", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The same examples with negatives; .jsonl or .jsonl.gz.",
)
@click.option(
    "--passages",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="More passages to look among, as .jsonl with text and perhaps title and document.",
)
@click.option("--encoder", metavar="NAME|DIR|HUB_ID", help="What measures; by default the store's, or the bundled one.")
@click.option("--guide", metavar="NAME|DIR|HUB_ID", help="A better encoder, to see through false negatives.")
@click.option("--negatives", type=int, default=4, show_default=True, help="Negatives of an example.")
@click.option("--depth", type=int, default=100, show_default=True, help="Candidates taken from a ranking.")
@click.option(
    "--margin",
    type=float,
    default=0.95,
    show_default=True,
    help="A negative's score is below this share of the positive's; 0 for no such rule.",
)
@click.option("--absolute-margin", type=float, help="A negative's score is below the positive's by this much.")
@click.option("--max-score", type=float, help="A negative's score is below this.")
@click.option("--guide-margin", type=float, default=0.0, show_default=True, help="The same margin for the guide.")
@click.option("--range-min", type=int, default=0, show_default=True, help="Pass over so many of the nearest.")
@click.option("--other-documents", is_flag=True, help="Take none from the document that holds the positive.")
@click.option("--lexical/--no-lexical", default=True, show_default=True, help="Look for shared words as well.")
@click.option("--sample", is_flag=True, help="Draw negatives, hard ones more likely, instead of taking the hardest.")
@click.option("--temperature", type=float, help="Of --sample: the higher the more even.  [default: 1.0]")
@click.option(
    "--scores",
    type=click.Choice(["dense", "guide", "soft"]),
    help="Keep scores for distillation: the encoder's, the guide's, or both and BM25 joined.",
)
@click.option("--seed", type=int, default=7, show_default=True, help="Seed of --sample.")
@collection_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    examples: Path,
    output: Path,
    passages: Path | None,
    encoder: str | None,
    guide: str | None,
    negatives: int,
    depth: int,
    margin: float,
    absolute_margin: float | None,
    max_score: float | None,
    guide_margin: float,
    range_min: int,
    other_documents: bool,
    lexical: bool,
    sample: bool,
    temperature: float | None,
    scores: ScoreKind | None,
    seed: int,
    collection: str,
    as_json: bool,
) -> None:
    """Find passages that look like the answers in EXAMPLES and are none.

    EXAMPLES is a .jsonl file of pairs, a BEIR folder, or a folder of such. With --store, negatives come from the
    store's chunks; otherwise from the positives of all examples, and from --passages. The nearest passages are often
    unlabelled answers: --margin, --guide and the like keep these out.
    """
    if temperature is not None and not sample:
        raise click.UsageError("--temperature belongs to --sample.")
    if passages is not None and store_given(ctx):
        raise click.UsageError("Give --store or --passages, not both.")
    if guide is None and guide_margin:
        raise click.UsageError("--guide-margin belongs to --guide.")
    from ragindex.train.mining import MiningOptions

    options = MiningOptions(
        negatives=negatives,
        depth=depth,
        skip=range_min,
        lexical=lexical,
        share=margin or None,
        margin=absolute_margin,
        limit=max_score,
        guide_margin=guide_margin,
        other_documents=other_documents,
        temperature=(1.0 if temperature is None else temperature) if sample else 0.0,
        scores=scores,
        seed=seed,
    )
    with ExitStack() as opened:
        job = _job(ctx, opened, examples, passages, encoder, guide, collection)
        report = _write(job, options, output)
    _show(report, output, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Job:
    examples: Sequence[Example]
    source: Source
    encoder: Encoder
    guide: Encoder | None


def _job(
    ctx: click.Context,
    opened: ExitStack,
    examples: Path,
    passages: Path | None,
    encoder: str | None,
    guide: str | None,
    collection: str,
) -> _Job:
    """Read and open what was named. Raises before anything is embedded when something is missing."""
    from ragindex.encoder import Encoder
    from ragindex.train.data.examples import read_examples
    from ragindex.train.sources import StorePassages

    given = list(read_examples(examples))
    guided = None if guide is None else Encoder.load(guide)
    if store_given(ctx):
        index = opened.enter_context(open_index(ctx, collection=collection))
        measure = index.encoder if encoder is None else Encoder.load(encoder)
        same = measure.fingerprint == index.encoder.fingerprint
        return _Job(given, StorePassages(index, same_encoder=same), measure, guided)
    measure = Encoder.load(encoder or "bundled")
    return _Job(given, _pool(given, passages, measure), measure, guided)


def _pool(examples: Sequence[Example], passages: Path | None, encoder: Encoder) -> Source:
    from ragindex.train.embedder import Embedder
    from ragindex.train.sources import PassagePool, positives_of, read_passages

    every = [*positives_of(examples), *([] if passages is None else read_passages(passages))]
    bar = progress_bar("Embedding ", unit="passages") or Silent()
    bar.start(len(every))
    try:
        return PassagePool(every, Embedder(encoder), advance=lambda count: bar.advance(files=count))
    finally:
        bar.finish()


def _write(job: _Job, options: MiningOptions, output: Path) -> MiningReport:
    from ragindex.errors import TrainingError
    from ragindex.train.data.examples import write_examples
    from ragindex.train.mining import MiningReport, mine

    report = MiningReport()
    bar = progress_bar("Mining ", unit="examples") or Silent()

    def watched(mined: Iterator[Mined]) -> Iterator[Example]:
        nonlocal report
        for item in mined:
            report = report.plus(item)
            bar.advance(files=1)
            yield item.example

    bar.start(len(job.examples))
    try:
        found = mine(job.examples, job.source, encoder=job.encoder, guide=job.guide, options=options)
        write_examples(output, watched(found))
    except OSError as error:
        raise TrainingError(f"{output} cannot be written: {error.strerror or error}.") from error
    finally:
        bar.finish()
    return report


def _show(report: MiningReport, output: Path, *, as_json: bool) -> None:
    each = report.negatives / max(1, report.mined)
    if as_json:
        emit_json(
            {
                "output": str(output),
                "examples": report.examples,
                "mined": report.mined,
                "negatives": report.negatives,
                "negatives_per_example": round(each, 3),
                "without": report.without,
                "dropped": {reason: report.dropped.get(reason, 0) for reason in _REASONS},
            }
        )
        return
    emit(
        f"{report.negatives:,} negatives for {report.mined:,} of {report.examples:,} examples, {each:.1f} each; "
        f"without any: {report.without:,}."
    )
    dropped = [f"{report.dropped[reason]:,} {text}" for reason, text in _REASONS.items() if report.dropped.get(reason)]
    if dropped:
        emit(f"Dropped as false negatives: {', '.join(dropped)}.")
    if report.without == report.examples:
        note("No example has a negative: raise --depth or --margin, or look among more passages.")

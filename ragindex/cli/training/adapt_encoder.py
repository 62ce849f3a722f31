"""`train adapt`: an encoder learns a corpus, and serves it if it is proven better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from ragindex.cli.options import collection_option, json_option, settings_for, store_given
from ragindex.cli.progress import progress_bar
from ragindex.cli.terminal import emit, emit_json
from ragindex.cli.training.launching import ParallelCommand, footprint_from, parallel_options
from ragindex.cli.training.options import ProgressBar
from ragindex.errors import UsageError

__all__ = ["command"]


@click.command(
    "adapt",
    cls=ParallelCommand,
    short_help="Train the encoder on your own text; use it only if it is proven better.",
)
@click.argument("path", metavar="PATH_OR_STORE", type=click.Path(exists=True, path_type=Path))
@click.option("--encoder", metavar="NAME|DIR|HUB_ID", help="The encoder to start from; for a store it is the store's.")
@click.option(
    "--output", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help="Also put the candidate here."
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Training time at most.",
)
@click.option("--steps", type=click.IntRange(min=1), default=200, show_default=True, help="Training steps at most.")
@click.option(
    "--judgements",
    metavar="DATASET_DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Questions with judged documents, in BEIR layout: they must be answered better as well.",
)
@click.option("--seed", type=int, default=7, show_default=True, help="Seed of everything random.")
@parallel_options
@collection_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    path: Path,
    encoder: str | None,
    output: Path | None,
    minutes: float,
    steps: int,
    judgements: Path | None,
    seed: int,
    collection: str,
    as_json: bool,
) -> None:
    """Train an encoder on the text of PATH_OR_STORE, and prove it on questions from text that it did not see.

    For a store (or a folder that holds .ragindex) the result takes the place of the store's encoder if it beats both
    that and BM25; `ragindex encoder rollback` goes back. For any other folder --output receives the result, whether it
    won or not.
    """
    from ragindex.train.lesson import AdaptOptions, assist
    from ragindex.train.processes import rank

    footprint = footprint_from(ctx)
    if rank() > 0:  # the main process reads, proves and promotes; the others train along
        assist(reporter=ProgressBar(), footprint=footprint)
        return
    options = AdaptOptions(minutes=minutes, steps=steps, seed=seed)
    store = _store_of(ctx, path)
    if store is None:
        from ragindex.adapting import adapt_folder

        if output is None:
            raise UsageError(
                f"{path} is not indexed, so there is nothing to promote the encoder in: give --output DIR, or run "
                f"`ragindex index {path}` first and adapt its store."
            )
        result = adapt_folder(
            path,
            output,
            encoder=encoder or "bundled",
            options=options,
            judgements=judgements,
            reporter=ProgressBar(),
            footprint=footprint,
        )
    else:
        from ragindex.adapting import adapt_store
        from ragindex.index import Index

        if encoder is not None:
            raise UsageError(
                "A store adapts the encoder that serves it; to start from another one, switch first with "
                f"`ragindex index PATH --encoder {encoder} --reembed`."
            )
        with Index.open(store, collection=collection, create=False, settings=settings_for(store)) as index:
            result = adapt_store(
                index,
                output=output,
                options=options,
                judgements=judgements,
                reporter=ProgressBar(),
                footprint=footprint,
                progress=progress_bar("Embedding "),
            )
    if as_json:
        emit_json(result)
    else:
        emit(_lines(result, in_store=store is not None))


def _store_of(ctx: click.Context, path: Path) -> Path | None:
    """The store that `path` is or holds, or the one that --store names."""
    from ragindex.cli.options import locate

    if (path / "catalog.sqlite").is_file():
        return path
    if (path / ".ragindex" / "catalog.sqlite").is_file():
        return path / ".ragindex"
    return locate(ctx) if store_given(ctx) else None


def _lines(result: Mapping[str, Any], *, in_store: bool) -> Iterator[str]:
    before, after = result["before"], result["after"]
    low, high = result["interval"]
    yield f"                   before   after     (nDCG@10 on {result['questions']} held-out questions)"
    yield f"  vectors alone    {before['ndcg@10']:.3f}    {after['ndcg@10']:.3f}     gain {low:+.3f} to {high:+.3f}"
    yield f"  hybrid search    {before['hybrid_ndcg@10']:.3f}    {after['hybrid_ndcg@10']:.3f}"
    yield f"  BM25 alone       {result['lexical']['ndcg@10']:.3f}"
    if "judged" in result:
        judged = result["judged"]
        yield (
            f"  your questions   {judged['before']['ndcg@10']:.3f}    {judged['after']['ndcg@10']:.3f}     "
            f"{judged['questions']} of them, vectors alone"
        )
    yield ""
    if not result["promoted"]:
        yield f"Kept the present encoder: {result['reason']}."
    elif in_store:
        yield f"Promoted: {result['reason']}."
        yield "`ragindex encoder rollback` goes back."
    else:
        yield f"Proven better: {result['reason']}."
        yield f"Use it with `ragindex index PATH --encoder {result['encoder']}`."

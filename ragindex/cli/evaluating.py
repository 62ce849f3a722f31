"""`eval`: how well a data set is answered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ragindex.cli.options import MODES, debug_option, json_option, store_option
from ragindex.cli.progress import progress_bar
from ragindex.cli.render import evaluation_lines
from ragindex.cli.terminal import emit, emit_json

if TYPE_CHECKING:
    from ragindex.types import Mode

__all__ = ["evaluate"]


@click.command("eval", short_help="Measure how well a data set is answered.")
@click.argument("dataset_dir", metavar="DATASET_DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--mode", "modes", type=click.Choice(MODES), multiple=True, help="Only this mode; may be repeated.")
@click.option("--encoder", metavar="NAME|DIR|HUB_ID", help="The encoder to measure; the bundled one by default.")
@store_option
@debug_option
@json_option
def evaluate(*, dataset_dir: Path, modes: tuple[str, ...], encoder: str | None, as_json: bool) -> None:
    """Measure how well a data set in BEIR layout is answered.

    DATASET_DIR holds queries.jsonl, qrels/*.tsv and the documents: corpus.jsonl, or files in a folder corpus/. It is
    indexed in a temporary store.
    """
    from ragindex.measure import evaluate_folder

    result = evaluate_folder(
        dataset_dir,
        modes=cast("tuple[Mode, ...]", tuple(dict.fromkeys(modes))) or None,
        encoder=encoder,
        progress=progress_bar(),
    )
    if as_json:
        emit_json(result)
    else:
        emit(evaluation_lines(result))

"""`eval`: how well data sets are answered and sentence pairs scored, and which of two encoders does it better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ragindex.cli.options import (
    MODES,
    debug_option,
    json_option,
    locate_or_new,
    settings_for,
    store_option,
)
from ragindex.cli.terminal import emit, emit_json

if TYPE_CHECKING:
    from ragindex.types import Mode

__all__ = ["evaluate"]

_folder = click.Path(exists=True, file_okay=False, path_type=Path)
_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_new_file = click.Path(dir_okay=False, path_type=Path)
_new_folder = click.Path(file_okay=False, path_type=Path)


@click.command("eval", short_help="Measure how well data sets are answered.")
@click.argument("dataset_dirs", metavar="[DATASET_DIR]...", nargs=-1, type=_folder)
@click.option("--mode", "modes", type=click.Choice(MODES), multiple=True, help="Only this mode; may be repeated.")
@click.option("--encoder", metavar="NAME|DIR|HUB_ID", help="The encoder to measure; that of the settings by default.")
@click.option(
    "--against",
    metavar="NAME|DIR|HUB_ID",
    help="Another encoder: also say how much better --encoder is than this one, and whether that is more than chance.",
)
@click.option("--instruction", metavar="TEXT", help="What the encoder is told about queries and sentences.")
@click.option("--split", metavar="NAME", default="test", show_default=True, help="The judgments: qrels/NAME.tsv.")
@click.option(
    "--sts",
    "sts_files",
    metavar="FILE",
    type=_file,
    multiple=True,
    help="Sentence pairs, tab-separated: score, sentence, sentence; may be repeated.",
)
@click.option(
    "--limit",
    "people",
    metavar="PEOPLE",
    type=click.IntRange(min=2),
    help="A generated LIMIT data set: of so many documents, every pair is the answer to a query.",
)
@click.option(
    "--likes",
    metavar="N",
    type=click.IntRange(min=1),
    help="Of --limit: things that each document names.  [default: 50, or PEOPLE - 1]",
)
@click.option(
    "--bystanders", metavar="N", type=click.IntRange(min=0), help="Of --limit: documents that answer no query."
)
@click.option("--seed", metavar="N", type=click.IntRange(min=0), help="Of --limit: another one of the same size.")
@click.option("--save", metavar="DIR", type=_new_folder, help="Of --limit: also write it to DIR, in BEIR layout.")
@click.option(
    "--length-bias",
    is_flag=True,
    help="Also say whether vectors of long texts crowd together, and whether length decides what is found.",
)
@click.option("--plot", metavar="FILE.png", type=_new_file, help="Also draw the figures.")
@click.option(
    "--run",
    "run_file",
    metavar="FILE",
    type=_new_file,
    help="Also write what was answered, as a TREC run; one file for each data set, encoder and mode.",
)
@store_option
@debug_option
@json_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    *,
    dataset_dirs: tuple[Path, ...],
    modes: tuple[str, ...],
    encoder: str | None,
    against: str | None,
    instruction: str | None,
    split: str,
    sts_files: tuple[Path, ...],
    people: int | None,
    likes: int | None,
    bystanders: int | None,
    seed: int | None,
    save: Path | None,
    length_bias: bool,
    plot: Path | None,
    run_file: Path | None,
    as_json: bool,
) -> None:
    """Measure how well data sets in BEIR layout are answered, each indexed in a temporary store.

    A DATASET_DIR holds queries.jsonl, qrels/*.tsv and the documents: corpus.jsonl, or files in a folder corpus/.
    Metrics come with 95 % bootstrap intervals over queries, differences between encoders with the p-value of a paired
    randomisation test.
    """
    generated = {"--likes": likes, "--bystanders": bystanders, "--seed": seed, "--save": save}
    _check_request(
        retrieval=bool(dataset_dirs) or people is not None,
        pairs=bool(sts_files),
        without_limit=[] if people is not None else [name for name, value in generated.items() if value is not None],
        only_retrieval=[name for name, value in (("--run", run_file), ("--length-bias", length_bias)) if value],
    )
    from ragindex.cli.evaluating.outputs import check_outputs, write_outputs
    from ragindex.cli.evaluating.reading import Generated, read_datasets, read_pairs
    from ragindex.cli.evaluating.tables import evaluation_lines
    from ragindex.cli.evaluating.watching import TerminalWatch
    from ragindex.encoder import Encoder
    from ragindex.measure import MODES as EVERY_MODE
    from ragindex.measure import Work, measure

    check_outputs(plot=plot, run=run_file)
    watch = TerminalWatch()
    settings = settings_for(locate_or_new(ctx), {"encoder": encoder})
    wanted = None if people is None else Generated(people, likes, bystanders or 0, seed or 0, save)
    work = Work(
        datasets=read_datasets(dataset_dirs, wanted, split=split, watch=watch),
        sts=read_pairs(sts_files),
        modes=cast("tuple[Mode, ...]", tuple(dict.fromkeys(modes))) or EVERY_MODE,
        instruction=instruction,
        length_bias=length_bias,
    )
    found = measure(
        work,
        encoder=Encoder.load(settings.encoder),
        against=None if against is None else Encoder.load(against),
        settings=settings,
        watch=watch,
    )
    if as_json:
        emit_json(found.report.as_json())
    else:
        emit(evaluation_lines(found.report))
    write_outputs(found, plot=plot, run=run_file)


def _check_request(*, retrieval: bool, pairs: bool, without_limit: list[str], only_retrieval: list[str]) -> None:
    if without_limit:
        raise click.UsageError(f"{without_limit[0]} belongs to --limit; say of how many people.")
    if not retrieval and not pairs:
        raise click.UsageError("Say what to measure: a DATASET_DIR, --sts FILE or --limit PEOPLE.")
    if not retrieval and only_retrieval:
        raise click.UsageError(f"{only_retrieval[0]} needs a data set with queries: a DATASET_DIR or --limit PEOPLE.")

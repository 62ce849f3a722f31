"""`train rotate`: an encoder whose first values say the most."""

from __future__ import annotations

from pathlib import Path

import click

from ragindex.cli.options import debug_option, json_option, store_option
from ragindex.cli.terminal import emit, emit_json
from ragindex.cli.training import require_extra
from ragindex.cli.training.options import EncoderFolder, encoder_option
from ragindex.errors import UsageError

__all__ = ["command"]


_EXAMPLE = """\b
ragindex train rotate --encoder floor --vectors cache --output rotated
"""


@click.command(
    "rotate", epilog=_EXAMPLE, short_help="Turn vectors so that cut ones keep as much as they can, without training."
)
@encoder_option
@click.option(
    "--vectors",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Its teacher's vectors, made by `train vectors`.",
)
@click.option(
    "--output",
    metavar="DIR",
    type=EncoderFolder(),
    required=True,
    help="Directory of the rotated encoder.",
)
@click.option("--matryoshka", default="64,128,256", show_default=True, metavar="N,N,…", help="Lengths to offer.")
@store_option
@debug_option
@json_option
def command(*, encoder: str, vectors: Path, output: Path, matryoshka: str, as_json: bool) -> None:
    """Turn an encoder's head onto the principal axes of its teacher's vectors. No cosine of whole vectors changes."""
    require_extra()
    from ragindex.train.rotate import rotate

    try:
        steps = [int(part) for part in matryoshka.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"--matryoshka is {matryoshka!r}; give numbers such as 64,128,256.") from error
    offered = rotate(encoder, vectors, output, steps=steps)
    if as_json:
        emit_json({"encoder": str(output), "matryoshka": list(offered)})
    else:
        emit(f"{output}: can be cut to {', '.join(map(str, offered)) or 'no shorter length'}")

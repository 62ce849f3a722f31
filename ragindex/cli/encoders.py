"""`encoder`: which encoders there are, what they are, and whether they work here."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ragindex.cli import exit_codes
from ragindex.cli.options import debug_option, json_option, store_option
from ragindex.cli.render import field_lines, human_bytes
from ragindex.cli.terminal import emit, emit_json, note, one_line, terminal_for

__all__ = ["encoder"]


@click.group()
@store_option
@debug_option
def encoder() -> None:
    """Show, test and copy encoders."""


@encoder.command("list", short_help="List the encoders found here.")
@click.argument("folders", metavar="[DIR]...", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@store_option
@debug_option
@json_option
def list_encoders(*, folders: tuple[Path, ...], as_json: bool) -> None:
    """List the bundled encoder and those in DIR, by default the current folder and up to two levels below it."""
    from ragindex.encoder import find_checkpoint
    from ragindex.errors import EncoderError

    found: list[dict[str, Any]] = []
    for name in _names(folders or (Path(),)):
        try:
            config = find_checkpoint(name).config
        except EncoderError as error:
            if name != "bundled":
                note(str(error))
            continue
        found.append({"name": name, "dimensions": config.dimensions, "max_tokens": config.max_tokens})
    if as_json:
        emit_json(found)
    elif found:
        emit(
            f"{row['dimensions']:>5} dimensions  {row['max_tokens']:>6,} tokens  {one_line(row['name'])}"
            for row in found
        )
    else:
        note("No encoder found.")


@encoder.command(short_help="Show what an encoder is.")
@click.argument("name", metavar="[NAME]", default="bundled")
@store_option
@debug_option
@json_option
def info(*, name: str, as_json: bool) -> None:
    """Show what an encoder is: dimensions, limits, prompts, fingerprint, card. NAME is `bundled` or a folder."""
    from ragindex.encoder import Encoder, find_checkpoint

    checkpoint = find_checkpoint(name)
    loaded = Encoder.load(name)
    config = checkpoint.config
    size = sum(file.stat().st_size for file in checkpoint.directory.iterdir() if file.is_file())
    value: dict[str, Any] = {
        "name": name,
        "directory": str(checkpoint.directory),
        "fingerprint": loaded.fingerprint,
        "model_type": checkpoint.model_type,
        "dimensions": loaded.dimensions,
        "matryoshka": list(config.matryoshka),
        "max_tokens": loaded.max_tokens,
        "attention": config.attention,
        "pooling": config.pooling,
        "pool_special": config.pool_special,
        "bytes": size,
        "prompts": config.prompts.as_json(),
        "card": dict(config.card),
    }
    if as_json:
        emit_json(value)
        return
    value["size"] = human_bytes(value.pop("bytes"))
    prompts, card = value.pop("prompts"), value.pop("card")
    value["prompts"] = {key: repr(template) for key, template in prompts.items() if template}
    value |= {"card": card} if card else {}
    emit(field_lines(value, terminal=terminal_for(sys.stdout, os.environ)))


@encoder.command(short_help="Load an encoder and test it.")
@click.argument("name", metavar="[NAME]", default="bundled")
@click.option("--device", metavar="DEVICE", help="cpu, cuda, mps, …; the best there is by default.")
@store_option
@debug_option
@json_option
@click.pass_context
def probe(ctx: click.Context, *, name: str, device: str | None, as_json: bool) -> None:
    """Load an encoder here and test it: does it read both ways, and are its vectors the same alone and in a batch?

    Exits with 2 when a vector depends on its batch or on padding.
    """
    from ragindex.cli.probe import probe as run_probe

    result = run_probe(name, device=device)
    if as_json:
        emit_json(asdict(result))
    else:
        emit(field_lines(asdict(result), terminal=terminal_for(sys.stdout, os.environ)))
    if not result.ok:
        ctx.exit(exit_codes.ERROR)


@encoder.command(short_help="Copy an encoder to a folder.")
@click.argument("name", metavar="NAME")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@store_option
@debug_option
@json_option
def export(*, name: str, directory: Path, as_json: bool) -> None:
    """Copy an encoder to the folder DIR, which must be empty or not there yet."""
    from ragindex.encoder import Encoder

    loaded = Encoder.load(name)
    loaded.save(directory)
    if as_json:
        emit_json({"name": name, "directory": str(directory), "fingerprint": loaded.fingerprint})
    else:
        emit(f"Saved to {directory}; use it with `ragindex index PATH --encoder {directory}`.")


def _names(folders: tuple[Path, ...]) -> list[str]:
    found = {
        file.parent
        for folder in folders
        for depth in ("", "*/", "*/*/")
        for file in folder.glob(f"{depth}ragindex.json")
    }
    return ["bundled", *sorted(map(str, found))]

"""`encoder`: which encoders there are, what they are, and whether they work here."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ragindex.cli import exit_codes
from ragindex.cli.exporting import export
from ragindex.cli.merging import merge
from ragindex.cli.options import debug_option, json_option, store_option
from ragindex.cli.render import field_lines, human_bytes
from ragindex.cli.switching import rollback
from ragindex.cli.terminal import emit, emit_json, note, one_line, terminal_for

__all__ = ["encoder"]


@click.group()
@store_option
@debug_option
def encoder() -> None:
    """Show, test, copy, merge encoders; take back a switch."""


encoder.add_command(export)
encoder.add_command(merge)
encoder.add_command(rollback)


@encoder.command("list", short_help="List the encoders found here.")
@click.argument("folders", metavar="[DIR]...", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@store_option
@debug_option
@json_option
def list_encoders(*, folders: tuple[Path, ...], as_json: bool) -> None:
    """List the bundled encoder and those in DIR, by default the current folder and up to two levels below it.

    Sentence-transformers models are listed too. Plain decoder models are not: nothing says that they are encoders.
    """
    from ragindex.encoder import find_checkpoint
    from ragindex.errors import EncoderError

    found: list[dict[str, Any]] = []
    for name in _names(folders or (Path(),)):
        try:
            checkpoint = find_checkpoint(name)
        except EncoderError as error:
            if name != "bundled":
                note(str(error))
            continue
        config = checkpoint.config
        row = {"dimensions": config.dimensions, "max_tokens": config.max_tokens, "model_type": checkpoint.model_type}
        found.append({"name": name, **row})
    if as_json:
        emit_json(found)
    elif found:
        emit(
            f"{row['dimensions']:>5} dimensions  {row['max_tokens']:>6,} tokens  {row['model_type'] or 'static':10}  "
            f"{one_line(row['name'])}"
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
    from ragindex.encoder.head import read_modules

    checkpoint = find_checkpoint(name)
    loaded = Encoder.load(name)
    config, model = checkpoint.config, checkpoint.model_config()
    size = sum(file.stat().st_size for file in checkpoint.directory.iterdir() if file.is_file())
    value: dict[str, Any] = {
        "name": name,
        "directory": str(checkpoint.directory),
        "fingerprint": loaded.fingerprint,
        "model_type": checkpoint.model_type,
        "modules": [module.kind for module in read_modules(checkpoint.directory)],
        "adapters": [str(adapter) for adapter in checkpoint.adapters],
        "dimensions": loaded.dimensions,
        "matryoshka": list(config.matryoshka),
        "max_tokens": loaded.max_tokens,
        "attention": config.attention,
        "pooling": config.pooling,
        "pool_special": config.pool_special,
        "temperature": config.temperature,
        "saturation": config.saturation,
        "lead": config.lead,
        "rope": model.get("rope_parameters") or model.get("rope_scaling") or {},
        "trust": config.trust,
        "bytes": size,
        "prompts": config.prompts.as_json(),
        "card": dict(config.card),
    }
    if as_json:
        emit_json(value)
        return
    value["size"] = human_bytes(value.pop("bytes"))
    prompts, rope, card = (value.pop(key) for key in ("prompts", "rope", "card"))
    value |= {
        key: fields for key, fields in (("rope", rope), ("prompts", _prompt_fields(prompts)), ("card", card)) if fields
    }
    emit(field_lines(value, terminal=terminal_for(sys.stdout, os.environ)))


def _prompt_fields(prompts: Mapping[str, Any]) -> dict[str, Any]:
    """Templates as they are written, so that spaces and line ends are seen; tasks and examples a line each."""
    fields: dict[str, Any] = {}
    for name, value in prompts.items():
        if isinstance(value, str):
            fields |= {name: repr(value)} if value else {}
        elif name == "tasks":
            fields[name] = {task: _task_line(stored) for task, stored in value.items()}
        else:
            fields[name] = [repr(example["query"]) for example in value]
    return fields


def _task_line(task: Mapping[str, Any]) -> str:
    parts = [repr(task["query"] or task["instruction"]), *(["both sides alike"] if task["symmetric"] else [])]
    count = len(task["examples"])
    return ", ".join([*parts, *([f"{count} example{'' if count == 1 else 's'}"] if count else [])])


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


def _names(folders: tuple[Path, ...]) -> list[str]:
    found = {
        file.parent
        for folder in folders
        for depth in ("", "*/", "*/*/")
        for kind in ("ragindex.json", "modules.json")
        for file in folder.glob(f"{depth}{kind}")
    }
    return ["bundled", *sorted(map(str, found))]

"""`status`, `list`, `failures`, `verify`, `repair` and `compact`: what a store holds and whether it is sound."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import Any

import click

from ragindex.cli import exit_codes
from ragindex.cli.options import collection_option, json_option, locate, open_index
from ragindex.cli.render import failure_lines, field_lines, human_bytes, verification_lines
from ragindex.cli.terminal import emit, emit_json, note, one_line, terminal_for
from ragindex.config import DENSE_INDEXES
from ragindex.errors import CorruptionError
from ragindex.types import Verification

__all__ = ["compact", "failures", "list_documents", "repair", "status", "verify"]


@click.command()
@collection_option
@json_option
@click.pass_context
def status(ctx: click.Context, *, collection: str, as_json: bool) -> None:
    """Show what the store holds: counts, encoder, sizes on disk."""
    with open_index(ctx, collection=collection) as index:
        found = index.status()
    if as_json:
        emit_json(found)
    else:
        emit(field_lines(_for_people(found), terminal=terminal_for(sys.stdout, os.environ)))


@click.command("list")
@collection_option
@json_option
@click.pass_context
def list_documents(ctx: click.Context, *, collection: str, as_json: bool) -> None:
    """List the indexed documents: size, chunks, path."""
    with open_index(ctx, collection=collection) as index:
        documents = index.documents()
    if as_json:
        emit_json(documents)
    elif documents:
        emit(f"{human_bytes(row['size']):>10}  {row['chunks']:>6,}  {one_line(row['path'])}" for row in documents)
    else:
        note("The index holds no documents.")


@click.command()
@collection_option
@json_option
@click.pass_context
def failures(ctx: click.Context, *, collection: str, as_json: bool) -> None:
    """List the files that could not be indexed, and why."""
    with open_index(ctx, collection=collection) as index:
        failed = index.failures()
    if as_json:
        emit_json([asdict(failure) for failure in failed])
    elif failed:
        emit(line.removeprefix("  ") for line in failure_lines(failed, limit=None)[1:])
    else:
        note("Every file could be indexed.")


@click.command(short_help="Check everything; changes nothing.")
@collection_option
@json_option
@click.pass_context
def verify(ctx: click.Context, *, collection: str, as_json: bool) -> None:
    """Read everything and compare; changes nothing. Exits with 2 when there are problems."""
    with open_index(ctx, collection=collection) as index:
        found = index.verify()
    _show(ctx, found, as_json=as_json)


@click.command(short_help="Mend what is damaged; embeds nothing.")
@collection_option
@json_option
@click.pass_context
def repair(ctx: click.Context, *, collection: str, as_json: bool) -> None:
    """Mend the catalogue and make the search indexes again from it; embeds nothing. Exits with 2 when problems remain.

    What was damaged beyond mending is marked: the next run of `index` reads it again and embeds only what is missing.
    """
    try:
        index = open_index(ctx, collection=collection)
    except CorruptionError:
        from ragindex.index import Index

        Index.rescue(locate(ctx))
        index = open_index(ctx, collection=collection)
    with index:
        found = index.repair()
    _show(ctx, found, as_json=as_json)


@click.command(short_help="Give back the space that nothing uses any more.")
@click.option("--forget-previous", is_flag=True, help="Drop the encoder before this one too: no rollback then.")
@click.option(
    "--index",
    "dense",
    metavar="NAME",
    type=click.Choice(DENSE_INDEXES),
    help=f"Keep the vectors so from now on: {', '.join(DENSE_INDEXES)}. Embeds nothing.",
)
@collection_option
@json_option
@click.pass_context
def compact(ctx: click.Context, *, forget_previous: bool, dense: str | None, collection: str, as_json: bool) -> None:
    """Give back the space that nothing uses any more, and make the search indexes again.

    Vectors are kept of the store's encoder and of the one before it, so that `ragindex encoder rollback` works;
    older ones go, with the copies of their encoders. With --index the store keeps its vectors in another way, and
    remembers it; `ragindex bench storage` shows what each way costs on your own texts.
    """
    with open_index(ctx, collection=collection) as index:
        result = index.compact(forget_previous=forget_previous, dense=dense)
    if as_json:
        emit_json(result)
        return
    before, after = human_bytes(result["bytes_before"]), human_bytes(result["bytes_after"])
    emit(f"{result['vectors_removed']:,} unused vectors removed; the store went from {before} to {after}.")
    if result["forgotten"] is not None:
        emit(f"The encoder {one_line(result['forgotten'])} was forgotten: there is no way back to it.")
    elif forget_previous:
        emit("There was no previous encoder to forget.")
    if dense is not None and result["dense"]["reason"] is not None:
        emit(_dense_for_people(result["dense"]))


def _show(ctx: click.Context, found: Verification, *, as_json: bool) -> None:
    if as_json:
        emit_json(asdict(found))
    else:
        emit(verification_lines(found))
    if not found.ok:
        ctx.exit(exit_codes.ERROR)


def _for_people(found: dict[str, Any]) -> dict[str, Any]:
    """Sizes with units, and of the encoder what identifies it; `--json` and `encoder info` show the whole card."""
    shown = dict(found)
    sizes = shown.pop("bytes", {})
    if sizes:
        shown["size on disk"] = ", ".join(f"{human_bytes(size)} {name}" for name, size in sizes.items())
    dense = shown.pop("dense", None)
    if dense and dense["reason"]:
        shown["index"] = f"{shown['index']}: {_dense_for_people(dense)}"
    activations = shown.pop("activations", [])
    if shown.get("previous_encoder") is None:
        shown.pop("previous_encoder", None)
    for key in ("encoder", "previous_encoder"):
        if shown.get(key):
            shown[key] = _encoder_for_people(shown[key], activations)
    return shown


def _dense_for_people(dense: dict[str, Any]) -> str:
    told: str = dense["reason"]
    if dense["snapshot"] not in (None, dense["scheme"]):
        told += f" The index is still {dense['snapshot']}; the next run of `index` or `compact` changes that."
    if dense["recall@10"] is not None and dense["recall@10"] < 1:
        told += f" It found {dense['recall@10']:.1%} of the ten nearest when it was built."
    return told


def _encoder_for_people(encoder: dict[str, Any], activations: list[dict[str, Any]]) -> str:
    told = f"{encoder['name']} ({encoder['dimensions']} dimensions, {encoder['fingerprint'][:8]})"
    latest = [entry for entry in activations if entry["fingerprint"] == encoder["fingerprint"]][-1:]
    for entry in latest:
        told += f", activated {entry['activated_at']}" + (f": {entry['note']}" if entry["note"] else "")
    return told

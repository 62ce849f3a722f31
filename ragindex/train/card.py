"""The card: a README.md beside an encoder (or a decoder) that says what it is and how it was made, from
`ragindex.json` (or `card.json`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragindex.encoder.checkpoint import CONFIG_FILE, TOKENIZER_FILE, read_json
from ragindex.encoder.files import optional
from ragindex.encoder.resolve import find_checkpoint

__all__ = ["CARD_FILE", "write_card"]

CARD_FILE = "card.json"  # beside a decoder, how it was made


def write_card(directory: Path, *, licences: Mapping[str, str] | None = None) -> None:
    """Write README.md into an encoder's or a decoder's directory. licences: of the training data, by file name."""
    is_encoder = (directory / CONFIG_FILE).is_file()
    entries = find_checkpoint(str(directory)).config.card if is_encoder else optional(directory / CARD_FILE)
    lines = [f"# {directory.name}", "", *(_encoder(directory) if is_encoder else _decoder(directory))]
    lines += ["", "## How it was made"]
    for stage, entry in entries.items():
        lines += ["", f"### {stage}", ""]
        lines += _entry(entry) if isinstance(entry, Mapping) else [str(entry)]
    if licences:
        lines += ["", "## Licences of the training data", "", "| data | licence |", "|---|---|"]
        lines += [f"| {name} | {licence} |" for name, licence in sorted(licences.items())]
    (directory / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _encoder(directory: Path) -> list[str]:
    checkpoint = find_checkpoint(str(directory))
    config = checkpoint.config
    about = (
        f"A text encoder made with ragindex: a {checkpoint.model_type} decoder with {config.attention} attention, "
        f"{config.pooling} pooling, {config.dimensions} dimensions, at most {config.max_tokens} tokens."
    )
    return [
        about,
        "",
        "```",
        "ragindex index FOLDER --encoder DIRECTORY",
        "```",
        "",
        "sentence-transformers reads the directory too.",
    ]


def _decoder(directory: Path) -> list[str]:
    kind = read_json(directory / "config.json").get("model_type")
    about = (
        f"A {kind} decoder made with ragindex; `AutoModelForCausalLM` of transformers reads it, {TOKENIZER_FILE} is "
        "its tokenizer. As an encoder it is a beginning, to be trained further."
    )
    return [
        about,
        "",
        "```",
        "ragindex train mntp --encoder DIRECTORY --text FILE --output ENCODER --steps 1000",
        "```",
    ]


def _entry(entry: Mapping[str, Any]) -> list[str]:
    measures = {"before": entry.get("before") or {}, "after": entry.get("after") or {}}
    lines = [f"- {key}: {_text(value)}" for key, value in entry.items() if key not in measures]
    names = [name for name in measures["after"] if name in measures["before"]]
    if names:
        lines += ["", "| held out | before | after |", "|---|---|---|"]
        lines += [f"| {name} | {measures['before'][name]:.4f} | {measures['after'][name]:.4f} |" for name in names]
    return lines


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

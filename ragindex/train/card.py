"""The encoder card: a README.md beside an encoder that says what it is and how it was made, from `ragindex.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragindex.encoder.resolve import find_checkpoint

__all__ = ["write_card"]


def write_card(directory: Path, *, licences: Mapping[str, str] | None = None) -> None:
    """Write README.md into an encoder's directory. licences: of the training data, by file name."""
    checkpoint = find_checkpoint(str(directory))
    config = checkpoint.config
    lines = [
        f"# {directory.name}",
        "",
        f"A text encoder made with ragindex: a {checkpoint.model_type} decoder with {config.attention} attention, "
        f"{config.pooling} pooling, {config.dimensions} dimensions, at most {config.max_tokens} tokens.",
        "",
        "```",
        "ragindex index FOLDER --encoder DIRECTORY",
        "```",
        "",
        "sentence-transformers reads the directory too.",
        "",
        "## How it was made",
    ]
    for stage, entry in config.card.items():
        lines += ["", f"### {stage}", ""]
        lines += _entry(entry) if isinstance(entry, Mapping) else [str(entry)]
    if licences:
        lines += ["", "## Licences of the training data", "", "| data | licence |", "|---|---|"]
        lines += [f"| {name} | {licence} |" for name, licence in sorted(licences.items())]
    (directory / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


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

"""What a text costs a model: counted with a tokenizer, or estimated where none is at hand."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ragindex.errors import UsageError

__all__ = ["ESTIMATE", "TokenCounter", "estimated_tokens", "file_counter", "given_counter"]

ESTIMATE = "estimate"
_FILE = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Counts the tokens of a text, special tokens not included. `name` says by what, `estimated` that no tokenizer
    was asked.
    """

    count: Callable[[str], int]
    name: str
    estimated: bool = False


def given_counter(tokenizer: str | Path | Callable[[str], int]) -> TokenCounter:
    """The counter that a user means: "estimate", a `tokenizer.json` or a directory that holds one, or a function from
    text to a number of tokens. Raises UsageError when there is no such tokenizer.
    """
    if callable(tokenizer):
        return _function_counter(tokenizer)
    if tokenizer == ESTIMATE:
        return TokenCounter(estimated_tokens, ESTIMATE, estimated=True)
    return file_counter(Path(tokenizer).expanduser())


def file_counter(path: Path) -> TokenCounter:
    """A counter by a `tokenizer.json` or the directory that holds one. Raises UsageError when it cannot be read."""
    file = path / _FILE if path.is_dir() else path
    if not file.is_file():
        raise UsageError(
            f"There is no tokenizer at {file}; name a tokenizer.json, a directory that holds one, or {ESTIMATE!r}."
        )
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exceptions
        raise UsageError(f"{file} is not a readable tokenizer: {error}.") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def count(text: str) -> int:
        # A lone surrogate cannot be encoded; it counts as the replacement that a prompt would hold.
        return len(tokenizer.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False).ids)

    return TokenCounter(count, str(file))


def _function_counter(function: Callable[[str], int]) -> TokenCounter:
    name = getattr(function, "__qualname__", type(function).__name__)

    def count(text: str) -> int:
        tokens: object = function(text)
        if not isinstance(tokens, int):  # most likely an `encode`, which gives the tokens themselves
            raise UsageError(f"{name} returned {type(tokens).__name__}; it must return the number of tokens.")
        return tokens

    return TokenCounter(count, name)


_PIECES = re.compile(
    r"(?P<word>[A-Z]?[a-z]+)|(?P<capitals>[A-Z]+(?![a-z]))|(?P<space> (?! ))|(?P<blank>[ \t\r\n]+)"
    r"|(?P<mark>[\x00-\x7f])|(?P<other>[^\x00-\x7f])"
)
_MARGIN = 1.05


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has, rather too many than too few.

    A word costs one token for every five letters begun, capitals one for every two, each digit and mark one, a run of
    white space one, other characters half a token a byte of UTF-8. Tokenizers of current models find 65 to 85 % of that
    in English prose and source code, and more than that in hardly any text; docs/context.md has the figures.
    """
    total = 0.0
    for piece in _PIECES.finditer(text):
        length = piece.end() - piece.start()
        match piece.lastgroup:
            case "word":
                total += (length + 4) // 5
            case "capitals":
                total += (length + 1) // 2
            case "blank":
                total += 1 + length // 16
            case "mark":
                total += 1
            case "other":
                total += max(1.0, len(piece.group().encode("utf-8", "replace")) / 2)
            case _:  # a single space belongs to the word after it
                pass
    return math.ceil(total * _MARGIN)

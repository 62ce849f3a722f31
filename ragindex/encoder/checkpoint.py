"""An encoder's directory on disk: what lies in it, how it is found, read and written, and its fingerprint.

    config.json, model.safetensors, tokenizer.json    the decoder, as transformers writes it
    ragindex.json                                     attention, pooling, prompts, dimensions, limits, card
    head.safetensors                                  optional: token_weights (vocabulary,), weight (d, hidden) and
                                                      bias (d,)

Loads neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ragindex.encoder.prompts import Prompts
from ragindex.errors import EncoderError

__all__ = ["Attention", "Checkpoint", "EncoderConfig", "Pooling", "bundled_directory", "find_checkpoint"]

Attention = Literal["bidirectional", "causal"]
Pooling = Literal["mean", "weighted-mean", "last"]

CONFIG_FILE = "ragindex.json"
HEAD_FILE = "head.safetensors"
TOKENIZER_FILE = "tokenizer.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """How a decoder is used as an encoder.

    dimensions: length of the vectors (weights that give longer ones are cut); matryoshka: shorter lengths that were
    trained to work when cut; max_tokens: longest input, prompt and special tokens included; pool_special: whether BOS
    and other special tokens are pooled (a decoder's BOS is an attention sink, so they are not by default); trust:
    what its cosines weigh beside BM25 in hybrid search, as measured (it decides no vector); card: how the encoder was
    made, free form.
    """

    dimensions: int
    max_tokens: int = 512
    attention: Attention = "bidirectional"
    pooling: Pooling = "mean"
    pool_special: bool = False
    prompts: Prompts = field(default_factory=Prompts)
    matryoshka: tuple[int, ...] = ()
    trust: float = 1.0
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value, known in (
            ("attention", self.attention, get_args(Attention)),
            ("pooling", self.pooling, get_args(Pooling)),
        ):
            if value not in known:
                raise EncoderError(f"Unknown {name} {value!r}; choose one of {', '.join(known)}.")
        if self.dimensions < 1 or self.max_tokens < 8:
            raise EncoderError("An encoder needs at least 1 dimension and 8 tokens.")

    def as_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        return {"format": FORMAT, **asdict(self), "prompts": self.prompts.as_json(), "card": dict(self.card)}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> EncoderConfig:
        """Raises EncoderError when the format is newer or a key is unknown."""
        values = dict(table)
        if values.pop("format", None) != FORMAT:
            raise EncoderError("This encoder was written by another version of ragindex; upgrade the program.")
        try:
            values["prompts"] = Prompts.from_json(values.get("prompts", {}))
            values["matryoshka"] = tuple(values.get("matryoshka", ()))
            return cls(**values)
        except (TypeError, AttributeError) as error:
            raise EncoderError(
                f"{CONFIG_FILE} has a missing or unknown key, or a value of the wrong type: {error}."
            ) from error


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An encoder directory and its configuration."""

    directory: Path
    config: EncoderConfig
    name: str

    @property
    def model_type(self) -> str:
        """The transformers architecture, for example "llama"."""
        return str(self.model_config().get("model_type", ""))

    def model_config(self) -> dict[str, Any]:
        """The decoder's config.json."""
        return _read_json(self.directory / "config.json")

    def vocabulary(self) -> int | None:
        """Rows of the decoder's embedding table, as its config.json says; None when it does not."""
        config = self.model_config()
        size = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
        return int(size) if size is not None else None

    def fingerprint(self, dimensions: int | None = None) -> str:
        """Hex digest over everything that decides a vector: weights, tokenizer, pooling, prompts, dimensions.

        The card and the name do not count: a copy under another name is the same encoder.
        """
        digest = hashlib.blake2b(digest_size=16)
        # Named one by one: a setting that is added later and decides no vector must not make every store stale.
        identity = {
            "attention": self.config.attention,
            "dimensions": dimensions or self.config.dimensions,
            "pool_special": self.config.pool_special,
            "pooling": self.config.pooling,
            "prompts": self.config.prompts.as_json(),
        }
        digest.update(json.dumps(identity, sort_keys=True).encode())
        weights = sorted(self.directory.glob("*.safetensors"))
        for file in [*weights, self.directory / TOKENIZER_FILE, self.directory / "config.json"]:
            digest.update(file.name.encode() + b"\0")
            try:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "blake2b").digest())
            except OSError as error:
                raise EncoderError(f"{file} cannot be read: {error.strerror}.") from error
        return digest.hexdigest()


def bundled_directory() -> Path:
    """Where the encoder lies that travels with the package."""
    return Path(__file__).resolve().parent / "bundled"


def find_checkpoint(name: str) -> Checkpoint:
    """Read the encoder called `name`: "bundled" or a directory.

    Raises EncoderError with what is missing and how to get it.
    """
    directory = bundled_directory() if name == "bundled" else Path(name).expanduser()
    if not directory.is_dir():
        raise EncoderError(f"There is no encoder {name!r}: it is neither 'bundled' nor a directory.")
    if not (directory / CONFIG_FILE).is_file():
        raise EncoderError(
            f"{directory} holds no {CONFIG_FILE}, so it is not a ragindex encoder; "
            "save it with Encoder.save(directory)."
        )
    for required in ("config.json", TOKENIZER_FILE):
        if not (directory / required).is_file():
            raise EncoderError(f"The encoder in {directory} is incomplete: {required} is missing.")
    if not any(directory.glob("model*.safetensors")):
        raise EncoderError(f"The encoder in {directory} is incomplete: it has no model.safetensors.")
    return Checkpoint(directory.resolve(), EncoderConfig.from_json(_read_json(directory / CONFIG_FILE)), name)


def write_config(directory: Path, config: EncoderConfig) -> None:
    """Write `ragindex.json` into a directory that holds a decoder and its tokenizer."""
    text = json.dumps(config.as_json(), indent=2, ensure_ascii=False, sort_keys=True)
    (directory / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{file} cannot be read: {error}.") from error
    if not isinstance(table, dict):
        raise EncoderError(f"{file} is not a JSON object.")
    return cast("dict[str, Any]", table)

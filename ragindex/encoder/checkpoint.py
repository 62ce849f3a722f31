"""What an encoder is made of, as values: its settings, and where its files lie. Loads neither torch nor transformers.

An encoder's directory is a sentence-transformers model (`ragindex.encoder.layout`) with `ragindex.json` beside it,
which says what that format cannot: instructions, special tokens, limits, the card.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

from ragindex.encoder.architectures import text_config
from ragindex.encoder.prompts import Prompts
from ragindex.encoder.rope import RopeScaling, scaled
from ragindex.errors import EncoderError

__all__ = [
    "Attention",
    "Checkpoint",
    "Counting",
    "EncoderConfig",
    "Pooling",
    "hidden_size",
    "read_json",
    "text_config",
    "write_config",
]

Attention = Literal["bidirectional", "causal"]
Pooling = Literal[
    "mean",
    "weighted-mean",
    "last",
    "generalised-mean",
    "latent-attention",
    "multi-layer",
    "attention-set",
    "mean-query",
    "modules",
]
WEIGHTLESS: frozenset[Pooling] = frozenset({"mean", "weighted-mean", "last"})  # need no tensors
IN_NUMPY: frozenset[Pooling] = WEIGHTLESS | {"mean-query"}  # what `ragindex.encoder.head` can do

CONFIG_FILE = "ragindex.json"
TOKENIZER_FILE = "tokenizer.json"
WEIGHTS_FILE = "model.safetensors"
FORMAT = 1


class Counting(NamedTuple):
    """How much a token counts when a text's tokens are pooled, beside its own weight; None, None: all alike.

    lead, in tokens: the token i places after the first one that is pooled counts 1 / sqrt(1 + i / lead). What a text is
    about is said early, in titles and first sentences. saturation, k: tokens that are the same and count n together
    count (k + 1) n / (k + n), the saturation of BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework",
    2009, section 3.4): what is said ten times is not ten times as true of a text.
    """

    saturation: float | None = None
    lead: float | None = None


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """How a decoder is used as an encoder.

    dimensions: length of the vectors (weights that give longer ones are cut); matryoshka: shorter lengths that were
    trained to work when cut; pooling: see `ragindex.encoder.pooling` for those with weights of their own; "modules"
    does all that follows the tokens as a sentence-transformers model says (`ragindex.encoder.foreign`);
    max_tokens: longest input, prompt and special tokens included; pool_special: whether BOS and others are pooled (a
    decoder's BOS is an attention sink, so they are not by default); temperature: divides the attention logits (below 1
    is sharper: TempScale, arXiv 2410.24200, against long texts growing alike); saturation and lead: how much the tokens
    of a text count when they are pooled, see `Counting`; trust: what its cosines weigh beside BM25 in hybrid search, as
    measured (it decides no vector); card: how the encoder was made, free form.
    """

    dimensions: int
    max_tokens: int = 512
    attention: Attention = "bidirectional"
    pooling: Pooling = "mean"
    pool_special: bool = False
    temperature: float = 1.0
    saturation: float | None = None
    lead: float | None = None
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
        if not 0 < self.temperature < math.inf:
            raise EncoderError(f"An attention temperature of {self.temperature} is impossible; give one above 0.")
        for name, number in (("saturation", self.saturation), ("lead", self.lead)):
            if number is not None and not 0 < number < math.inf:
                raise EncoderError(f"A {name} of {number} is impossible; give one above 0.")

    @property
    def counting(self) -> Counting:
        """How much tokens count in pooling."""
        return Counting(self.saturation, self.lead)

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
    """An encoder's files and its configuration.

    directory: what was named, with the modules after the decoder; backbone: where the decoder's config.json and
    weights lie; tokenizer: a `tokenizer.json`, or a directory whose tokenizer transformers has to read; adapters:
    LoRA directories that are merged into the decoder, in this order; rope_scaling: for texts longer than it knows.
    """

    directory: Path
    config: EncoderConfig
    name: str
    backbone: Path
    tokenizer: Path
    adapters: tuple[Path, ...] = ()
    rope_scaling: RopeScaling | None = None

    @property
    def is_foreign(self) -> bool:
        """Whether it is run as the modules of a sentence-transformers model say."""
        return self.config.pooling == "modules"

    @property
    def model_type(self) -> str:
        """The transformers architecture, for example "llama"."""
        return str(self.model_config().get("model_type", ""))

    def model_config(self) -> dict[str, Any]:
        """The decoder's config.json, its positions scaled if they are to be; static embeddings may have none."""
        file = self.backbone / "config.json"
        if self.is_foreign and not file.is_file():
            return {}
        config = read_json(file)
        return config if self.rope_scaling is None else scaled(config, self.rope_scaling)

    def vocabulary(self) -> int | None:
        """Rows of the decoder's embedding table, as its config.json says; None when it does not."""
        size = text_config(self.model_config()).get("vocab_size")
        return int(size) if size is not None else None

    def weight_files(self) -> list[Path]:
        """The decoder's weights: one file, or the parts that its index names. Raises EncoderError for an index that
        names files elsewhere.
        """
        index = self.backbone / f"{WEIGHTS_FILE}.index.json"
        if not index.is_file():
            return [self.backbone / WEIGHTS_FILE]
        names = sorted({str(name) for name in (read_json(index).get("weight_map") or {}).values()})
        if not names or any(Path(name).name != name for name in names):
            raise EncoderError(f"{index} names no files beside it; copy the model again.")
        return [self.backbone / name for name in names]


def hidden_size(config: Mapping[str, Any]) -> int:
    """Length of a decoder's states, from its config.json. Raises EncoderError when that does not say it."""
    inner = text_config(config)
    size = next((inner[key] for key in ("hidden_size", "n_embd", "d_model") if inner.get(key)), None)
    if not isinstance(size, int):
        raise EncoderError("The model's config.json does not say how long its states are (hidden_size).")
    return size


def write_config(directory: Path, config: EncoderConfig) -> None:
    """Write `ragindex.json` into an encoder's directory."""
    text = json.dumps(config.as_json(), indent=2, ensure_ascii=False, sort_keys=True)
    (directory / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises EncoderError when there is none."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{file} cannot be read: {error}.") from error
    if not isinstance(table, dict):
        raise EncoderError(f"{file} is not a JSON object.")
    return cast("dict[str, Any]", table)

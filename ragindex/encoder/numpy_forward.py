"""A Llama decoder's forward pass in numpy, for queries: ten tokens do not justify seconds of importing torch.

Covers what the bundled encoder uses: RMSNorm, rotary positions (default frequencies), grouped-query attention,
SwiGLU; no biases. `supports` says whether a checkpoint is such a model. Equal to the torch path within 1e-4 (tested).
Rows of the embedding table are read from the file as they are needed, so opening a checkpoint costs milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ragindex.encoder.checkpoint import IN_NUMPY, WEIGHTS_FILE, Checkpoint
from ragindex.encoder.head import Head
from ragindex.encoder.tokenizer import Tokenized

__all__ = ["NumpyForward", "supports"]

_LAYER = (
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
_NUMPY_TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
_HALF_INFINITY = 0x7C00  # bits of a half float from which it is no number
_OUTPUTS = ("self_attn.o_proj", "mlp.down_proj")
_TOGETHER = 4096  # tokens whose states are held at a time
_LARGEST_HIDDEN = 1024  # beyond this, torch pays for its import


def supports(checkpoint: Checkpoint) -> bool:
    """Whether `NumpyForward` can run this checkpoint, exactly. Weights that are damaged or incomplete are left to
    torch, which says what is wrong with them.
    """
    config = checkpoint.model_config()
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return (
        not checkpoint.adapters
        and checkpoint.config.pooling in IN_NUMPY
        and checkpoint.config.temperature == 1
        and config.get("model_type") == "llama"
        and config.get("hidden_act", "silu") == "silu"
        and not config.get("attention_bias")
        and not config.get("mlp_bias")
        and rope.get("rope_type", rope.get("type", "default")) == "default"
        and int(config.get("hidden_size", 1 << 20)) <= _LARGEST_HIDDEN
        and _readable(checkpoint.backbone / WEIGHTS_FILE, config)
    )


def _readable(file: Path, config: Mapping[str, Any]) -> bool:
    """Whether a file holds every tensor by the name that is read here, in a type that numpy knows (not bfloat16)."""
    needed = {"norm.weight", "embed_tokens.weight"}
    needed.update(
        f"layers.{layer}.{name}.weight" for layer in range(int(config["num_hidden_layers"])) for name in _LAYER
    )
    if not file.is_file():
        return False
    try:
        with safe_open(str(file), framework="numpy") as weights:
            if not needed <= set(weights.keys()):
                return False
            table = weights.get_slice("embed_tokens.weight").get_shape()
            return table == [config["vocab_size"], config["hidden_size"]] and all(
                weights.get_slice(name).get_dtype() in _NUMPY_TYPES for name in needed
            )
    except (OSError, SafetensorError):
        return False


@dataclass(frozen=True, slots=True)
class _Shape:
    layers: int
    heads: int
    key_heads: int
    head_size: int
    theta: float
    epsilon: float
    causal: bool

    @classmethod
    def of(cls, config: Mapping[str, Any], *, causal: bool) -> _Shape:
        heads = int(config["num_attention_heads"])
        rope = config.get("rope_parameters") or {}
        return cls(
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            key_heads=int(config.get("num_key_value_heads") or heads),
            head_size=int(config.get("head_dim") or config["hidden_size"] // heads),
            theta=float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
            epsilon=float(config.get("rms_norm_eps", 1e-6)),
            causal=causal,
        )


class NumpyForward:
    """Unit vectors for a few short texts. Thread-safe."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._config = checkpoint.config
        self._shape = _Shape.of(checkpoint.model_config(), causal=checkpoint.config.attention == "causal")
        self._head = Head.read(checkpoint.directory)
        self._file = safe_open(str(checkpoint.backbone / WEIGHTS_FILE), framework="numpy")
        layers = [
            {name: self._read(f"layers.{layer}.{name}.weight") for name in _LAYER}
            for layer in range(self._shape.layers)
        ]
        # A layer with zero output projections adds nothing to its input: leaving it out changes no vector.
        self._layers = [weights for weights in layers if any(weights[name].any() for name in _OUTPUTS)]
        self._norm = self._read("norm.weight")
        self._rows = _mapped(checkpoint.backbone / WEIGHTS_FILE, "embed_tokens.weight")

    @property
    def is_static(self) -> bool:
        """Whether no token reads any other, so that a text costs no more than the mean of its token rows."""
        return not self._layers

    def __call__(self, batch: Sequence[Tokenized]) -> np.ndarray:
        """Unit vectors, float32 (len(batch), d)."""
        config, states = self._config, iter(self.states(batch))
        parts = [
            self._head.apply_all(
                list(islice(states, len(group))),
                np.concatenate([item.ids for item in group]),
                np.concatenate([item.pooled for item in group]),
                config.pooling,
                counting=config.counting,
            )
            for group in _groups(batch)
        ]
        return np.concatenate(parts)

    def states(self, batch: Sequence[Tokenized]) -> Iterator[np.ndarray]:
        """Last hidden states, float32 (length, hidden) of each text, in the order of `batch`.

        Without layers a token's state is the same wherever it stands: each distinct one is computed once.
        """
        if not self.is_static or len(batch) == 1:
            yield from (self._states(item.ids) for item in batch)
            return
        used, places = np.unique(np.concatenate([item.ids for item in batch]), return_inverse=True)
        states = self.rows(used)
        ends = np.cumsum([len(item.ids) for item in batch])
        yield from (states[span] for span in np.split(places, ends[:-1]))

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """States of tokens (n,) by themselves, float32 (n, hidden); without layers they have them in every text."""
        states = self._embed(ids)
        return _rms(states, self._norm, self._shape.epsilon, out=states)

    def shares(self, item: Tokenized) -> np.ndarray:
        """What each token of a text counts in its vector, float32 (length,)."""
        config = self._config
        states = self._states(item.ids)
        return self._head.shares([states], item.ids, item.pooled, config.pooling, counting=config.counting)

    def _read(self, name: str) -> np.ndarray:
        return np.asarray(self._file.get_tensor(name), dtype=np.float32)

    def _embed(self, ids: np.ndarray) -> np.ndarray:
        return _float32(self._rows[ids])

    def _states(self, ids: np.ndarray) -> np.ndarray:
        """Last hidden states, float32 (length, hidden)."""
        rotation = _rotation(len(ids), self._shape)
        states = self._embed(ids)
        for weights in self._layers:
            states = states + self._attend(
                _rms(states, weights["input_layernorm"], self._shape.epsilon), weights, rotation
            )
            inner = _rms(states, weights["post_attention_layernorm"], self._shape.epsilon)
            gate = inner @ weights["mlp.gate_proj"].T
            gate = gate / (1.0 + np.exp(-np.clip(gate, -80.0, 80.0)))
            states = states + (gate * (inner @ weights["mlp.up_proj"].T)) @ weights["mlp.down_proj"].T
        return _rms(states, self._norm, self._shape.epsilon)

    def _attend(
        self, inner: np.ndarray, weights: Mapping[str, np.ndarray], rotation: tuple[np.ndarray, np.ndarray]
    ) -> np.ndarray:
        shape = self._shape
        length = len(inner)
        queries = _split(inner @ weights["self_attn.q_proj"].T, shape.heads)
        keys = _split(inner @ weights["self_attn.k_proj"].T, shape.key_heads)
        values = _split(inner @ weights["self_attn.v_proj"].T, shape.key_heads)
        queries, keys = _rotate(queries, rotation), _rotate(keys, rotation)
        shared = shape.heads // shape.key_heads
        keys, values = np.repeat(keys, shared, axis=0), np.repeat(values, shared, axis=0)
        scores = queries @ keys.transpose(0, 2, 1) / np.sqrt(shape.head_size)
        if shape.causal:
            scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed = (scores @ values).transpose(1, 0, 2).reshape(length, -1)
        return np.asarray(mixed @ weights["self_attn.o_proj"].T)


def _groups(batch: Sequence[Tokenized]) -> Iterator[list[Tokenized]]:
    """Texts in their order, as many as have `_TOGETHER` tokens, or one that has more."""
    group: list[Tokenized] = []
    tokens = 0
    for item in batch:
        if group and tokens + len(item.ids) > _TOGETHER:
            yield group
            group, tokens = [], 0
        group.append(item)
        tokens += len(item.ids)
    yield group


def _mapped(file: Path, name: str) -> np.ndarray:
    """A tensor of a safetensors file, read as it is asked for. That library gives slices of one only, no rows."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        entry = json.loads(opened.read(size))[name]
    start = 8 + size + int(entry["data_offsets"][0])
    return np.asarray(np.memmap(file, _NUMPY_TYPES[entry["dtype"]], "r", start, tuple(entry["shape"])))


def _float32(values: np.ndarray) -> np.ndarray:
    """The same values as float32. Of half floats by their bits, six times as fast as numpy does it: exponent and
    fraction are put where float32 has them, and a product mends the exponent's bias, of subnormal ones too.
    """
    if values.dtype != np.float16 or (values.view(np.uint16) & 0x7FFF).max(initial=0) >= _HALF_INFINITY:
        return np.asarray(values, dtype=np.float32)
    bits = values.view(np.int16).astype(np.int32)  # the sign fills the upper half, of which its bit alone is kept
    bits <<= 13
    bits &= ~0x70000000
    floats = bits.view(np.float32)
    floats *= np.float32(2.0**112)
    return floats


def _rms(states: np.ndarray, weight: np.ndarray, epsilon: float, *, out: np.ndarray | None = None) -> np.ndarray:
    squares = np.einsum("lh,lh->l", states, states) / states.shape[-1]
    scaled: np.ndarray = np.multiply(states, (1 / np.sqrt(squares + epsilon))[:, None], out=out)
    scaled *= weight
    return scaled


def _split(states: np.ndarray, heads: int) -> np.ndarray:
    return states.reshape(len(states), heads, -1).transpose(1, 0, 2)


def _rotation(length: int, shape: _Shape) -> tuple[np.ndarray, np.ndarray]:
    frequencies = shape.theta ** (-np.arange(0, shape.head_size, 2, dtype=np.float64) / shape.head_size)
    angles = np.outer(np.arange(length), np.concatenate([frequencies, frequencies]))
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _rotate(states: np.ndarray, rotation: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    cosine, sine = rotation
    half = states.shape[-1] // 2
    turned = np.concatenate([-states[..., half:], states[..., :half]], axis=-1)
    return np.asarray(states * cosine + turned * sine)

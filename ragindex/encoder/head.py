"""From token states to one unit vector: token weights, pooling by mask, the linear head; in numpy.

`ragindex.encoder.torch_forward` holds the same arithmetic for tensors; a test keeps the two equal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ragindex.encoder.checkpoint import WEIGHTS_FILE, Counting, Pooling, read_json
from ragindex.errors import EncoderError

__all__ = ["Head", "Module", "counted", "load_tensors", "pool", "read_modules", "read_token_weights"]

MODULES_FILE = "modules.json"
POOLER = "Pooler"  # the last part of the class name of any pooling that sentence-transformers lacks
_ALIKE = Counting()
_ONE_TEXT = np.zeros(1, dtype=np.int64)
SPECIAL_TOKENS = "_SpecialTokens"  # a WordWeights folder that only leaves special tokens out, as `pool_special` does


class Module(NamedTuple):
    """One entry of `modules.json`: the last part of its class name, its folder, and what its class belongs to."""

    kind: str
    folder: Path
    package: str


def read_modules(directory: Path) -> list[Module]:
    """The modules of a sentence-transformers directory, in order; none where there is no `modules.json`.

    Raises EncoderError when the file is damaged or names a folder elsewhere.
    """
    file = directory / MODULES_FILE
    if not file.is_file():
        return []
    try:
        entries = list(json.loads(file.read_text(encoding="utf-8")))
        modules = [_module(str(entry["type"]), Path(str(entry["path"]))) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(f"{file} is not a readable list of modules: {error}.") from error
    if any(module.folder.is_absolute() or ".." in module.folder.parts for module in modules):
        raise EncoderError(f"{file} names a folder outside of the encoder.")
    return [module._replace(folder=directory / module.folder) for module in modules]


def _module(name: str, folder: Path) -> Module:
    return Module(name.rpartition(".")[2], folder, name.partition(".")[0])


@dataclass(frozen=True, slots=True)
class Head:
    """The optional tensors after the decoder, float32; None where the encoder has none.

    token_weights: (vocabulary,), how much a token counts in pooling; weight (d, hidden) and bias (d,): a linear map
    of the pooled state; pooler: the state of a trainable pooling (`ragindex.encoder.pooling`), by name.
    """

    token_weights: np.ndarray | None = None
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    pooler: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path) -> Head:
        """The head of an encoder directory, from its WordWeights and Dense modules; an empty one when it has none.

        Several linear maps in a row are multiplied into one. Raises EncoderError when a module is damaged or is not
        linear.
        """
        head = cls()
        for module in read_modules(directory):
            if module.kind == "WordWeights" and not module.folder.name.endswith(SPECIAL_TOKENS):
                head = replace(head, token_weights=read_token_weights(module.folder))
            elif module.kind == POOLER:
                head = replace(head, pooler=load_tensors(module.folder / WEIGHTS_FILE))
            elif module.kind == "Dense":
                head = head.followed_by(_read_dense(module.folder))
        return head

    def followed_by(self, after: Head) -> Head:
        """One head that does what this one and then the linear map of another do."""
        if self.weight is None or after.weight is None:
            return replace(self, weight=after.weight, bias=after.bias)
        if after.weight.shape[1] != len(self.weight):
            raise EncoderError(
                f"A linear map of {after.weight.shape[1]} values follows one that gives {len(self.weight)}."
            )
        weight = after.weight.astype(np.float64) @ self.weight
        bias = None if self.bias is None else after.weight.astype(np.float64) @ self.bias
        if after.bias is not None:
            bias = after.bias if bias is None else bias + after.bias
        bias = None if bias is None else bias.astype(np.float32)
        return replace(self, weight=weight.astype(np.float32), bias=bias)

    def cut(self, dimensions: int) -> Head:
        """The head that gives the first `dimensions` values only; without a linear map there is nothing to cut."""
        if self.weight is None:
            return self
        bias = None if self.bias is None else self.bias[:dimensions]
        return replace(self, weight=self.weight[:dimensions], bias=bias)

    def apply(
        self,
        states: np.ndarray,
        ids: np.ndarray,
        pooled: np.ndarray,
        pooling: Pooling,
        *,
        counting: Counting = _ALIKE,
    ) -> np.ndarray:
        """Unit vector (d,) from the states (length, hidden) of one text."""
        (vector,) = self.apply_all([states], ids, pooled, pooling, counting=counting)
        return np.asarray(vector)

    def apply_all(
        self,
        states: Sequence[np.ndarray],
        ids: np.ndarray,
        pooled: np.ndarray,
        pooling: Pooling,
        *,
        counting: Counting = _ALIKE,
    ) -> np.ndarray:
        """Unit vectors (n, d) from the states (length, hidden) of n texts; ids, pooled: (tokens,) of all, one after the
        other.
        """
        starts = np.cumsum([0, *map(len, states)])
        vectors = _pooled(states, self.shares(states, ids, pooled, pooling, counting=counting), starts)
        if self.weight is not None:
            vectors = vectors @ self.weight.T
        if self.bias is not None:
            vectors = vectors + self.bias
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))

    def shares(
        self,
        states: Sequence[np.ndarray],
        ids: np.ndarray,
        pooled: np.ndarray,
        pooling: Pooling,
        *,
        counting: Counting = _ALIKE,
    ) -> np.ndarray:
        """What each token counts (tokens,) in the mean that its text is pooled to; arguments as for `apply_all`."""
        starts = np.cumsum([0, *map(len, states)])
        shares = self._plain_shares(ids, pooled, starts[:-1], pooling, counting)
        if pooling == "mean-query":
            shares = shares * self._answers(states, _pooled(states, shares, starts))
        return shares

    def _answers(self, states: Sequence[np.ndarray], means: np.ndarray) -> np.ndarray:
        """How much more the tokens (tokens,) weigh for what they answer to their mean: `MeanQuery` in numpy."""
        if "query" not in self.pooler:
            raise EncoderError(
                "The encoder holds no weights for mean-query pooling; choose another pooling, or train this one."
            )
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        asked = means @ self.pooler["query"].T / np.maximum(lengths, 1e-12)
        cosines = [
            some @ one / np.maximum(np.sqrt(np.einsum("lh,lh->l", some, some)), 1e-12)
            for some, one in zip(states, asked, strict=True)
        ]
        return np.asarray(np.exp(np.concatenate(cosines)), dtype=np.float32)

    def _plain_shares(
        self, ids: np.ndarray, pooled: np.ndarray, starts: np.ndarray, pooling: Pooling, counting: Counting
    ) -> np.ndarray:
        shares = pooled.astype(np.float32)
        if pooling == "last":
            last = np.maximum.reduceat(np.where(pooled, np.arange(len(ids)), 0), starts)
            shares = np.zeros_like(shares)
            shares[last] = 1.0
            return shares
        if pooling == "weighted-mean":  # SGPT, arXiv 2202.08904: later tokens have read more
            shares *= _places(pooled, starts)
        if self.token_weights is not None:
            shares *= self.token_weights[ids]
        if counting != _ALIKE:
            shares *= counted(ids, pooled, counting, starts=starts)
        return shares


def _pooled(states: Sequence[np.ndarray], shares: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Means (n, hidden) of the states of each text by shares (tokens,)."""
    spans = zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    return np.stack([pool(some, shares[start:end]) for some, (start, end) in zip(states, spans, strict=True)])


def pool(states: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Mean of the states (length, hidden) by shares (length,)."""
    return np.asarray(shares @ states / max(float(shares.sum()), 1e-12), dtype=np.float32)


def counted(ids: np.ndarray, pooled: np.ndarray, counting: Counting, *, starts: np.ndarray = _ONE_TEXT) -> np.ndarray:
    """What each of the tokens (tokens,) of texts that begin at `starts` counts; of those that are not pooled it says
    nothing.
    """
    counts = np.ones(len(ids), dtype=np.float32)
    if counting.lead is not None:
        places = np.maximum(_places(pooled, starts) - 1, 0)
        counts = (1 / np.sqrt(1 + places / counting.lead)).astype(np.float32)
    if counting.saturation is not None:
        _, same = np.unique(_owners(starts, len(ids)) * (int(ids.max()) + 1) + ids, return_inverse=True)
        together = np.bincount(same, weights=counts * pooled)[same]
        counts *= (counting.saturation + 1) / (counting.saturation + together)
    return counts


def _places(pooled: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """How many of the tokens (tokens,) up to and with each are pooled, in its own text."""
    so_far = np.cumsum(pooled)
    before = so_far[starts] - pooled[starts]
    return np.asarray(so_far - before[_owners(starts, len(pooled))])


def _owners(starts: np.ndarray, tokens: int) -> np.ndarray:
    """The number of the text (tokens,) that each token belongs to."""
    return np.repeat(np.arange(len(starts)), np.diff(starts, append=tokens))


def read_token_weights(folder: Path) -> np.ndarray:
    """(vocabulary,) of a WordWeights module. The tensor is read where there is one: it is the faster of the two."""
    if (folder / WEIGHTS_FILE).is_file():
        return _tensor(load_tensors(folder / WEIGHTS_FILE), "emb_layer.weight", folder).ravel()
    table = read_json(folder / "config.json")
    try:
        known, other = table["word_weights"], float(table.get("unknown_word_weight", 1.0))
        values = [known.get(word, known.get(word.lower(), other)) for word in table["vocab"]]
        return np.asarray(values, dtype=np.float32)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EncoderError(f"{folder / 'config.json'} holds no readable word weights: {error}.") from error


def _read_dense(folder: Path) -> Head:
    config = read_json(folder / "config.json")
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    if activation.rpartition(".")[2] != "Identity" or config.get("use_residual"):
        raise EncoderError(f"The layer in {folder} is not linear ({activation}), which no encoder here may have.")
    tensors = load_tensors(folder / WEIGHTS_FILE)
    return Head(weight=_tensor(tensors, "linear.weight", folder), bias=tensors.get("linear.bias"))


def load_tensors(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, float32. Raises EncoderError for another file, and for types numpy lacks."""
    if not file.is_file():
        raise EncoderError(f"{file} is missing; weights in another format must be converted to safetensors first.")
    try:
        return {name: tensor.astype(np.float32) for name, tensor in load_file(file).items()}
    except (OSError, SafetensorError, TypeError) as error:
        raise EncoderError(f"{file} cannot be read as fp16 or fp32 tensors: {error}.") from error


def _tensor(tensors: dict[str, np.ndarray], name: str, folder: Path) -> np.ndarray:
    if name not in tensors:
        raise EncoderError(f"{folder / WEIGHTS_FILE} holds no {name}.")
    return tensors[name]

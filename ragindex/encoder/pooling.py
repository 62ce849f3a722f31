"""Trainable poolings: token states to one vector, as torch modules whose tensors are stored with the encoder.

Mean, weighted mean and last token need no weights; they are in `ragindex.encoder.torch_forward` and, in numpy, in
`ragindex.encoder.head`, which has the mean query as well. All pool by mask. A module is made anew with `new_pooling`,
for training, or from stored tensors with `stored_pooling`; its state dict is what `Head.pooler` holds, and the sizes
are those of the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.functional import gelu, normalize, scaled_dot_product_attention

from ragindex.encoder.checkpoint import Pooling
from ragindex.errors import EncoderError

__all__ = [
    "AttentionSet",
    "GeneralisedMean",
    "LatentAttention",
    "MeanQuery",
    "MultiLayer",
    "Pooler",
    "new_pooling",
    "stored_pooling",
]


class Pooler(nn.Module):
    """Base of the trainable poolings."""

    needs_all_layers = False

    def forward(self, states: Sequence[torch.Tensor], shares: torch.Tensor) -> torch.Tensor:
        """One vector a row, (n, hidden).

        states: those of every layer, or of the last one alone, each (n, length, hidden); shares: (n, length), 0 for
        what is not pooled, else the token's weight.
        """
        raise NotImplementedError


class GeneralisedMean(Pooler):
    """(mean of x^p)^(1/p), value by value, with the sign kept: p = 1 is the mean, a large p the largest value.

    GeM: Radenović et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", arXiv 1711.02512, where no value
    is negative.
    """

    def __init__(self, power: float = 3.0) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(power))

    def forward(self, states: Sequence[torch.Tensor], shares: torch.Tensor) -> torch.Tensor:
        """See `Pooler`."""
        kept = states[-1] * (shares > 0).unsqueeze(-1)
        largest = kept.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)  # taken out: its power may overflow
        mean = _mean(_signed_power(kept / largest, self.power), shares)
        return largest.squeeze(1) * _signed_power(mean, 1 / self.power)


class LatentAttention(Pooler):
    """Each state reads a trained dictionary, then an MLP; the mean of what it found.

    O = softmax(Q Kᵀ) V with Q the states and K, V from the dictionary: NV-Embed, arXiv 2405.17428, section 3.1.1 (512
    latents, 8 heads).
    """

    def __init__(self, hidden: int, *, latents: int = 512, heads: int = 8, inner: int | None = None) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, hidden) / hidden**0.5)
        self.attention = _CrossAttention(hidden, heads)
        self.up = nn.Linear(hidden, inner or hidden)
        self.down = nn.Linear(inner or hidden, hidden)

    def forward(self, states: Sequence[torch.Tensor], shares: torch.Tensor) -> torch.Tensor:
        """See `Pooler`."""
        found = self.attention(states[-1], self.latents.expand(len(shares), -1, -1))
        return _mean(self.down(gelu(self.up(found))), shares)


class MultiLayer(Pooler):
    """Trained queries read the means of all layers; the mean of what they found.

    "Pooling and Attention: What are Effective Designs for LLM-based Embedding Models?", arXiv 2409.02727.
    """

    needs_all_layers = True

    def __init__(
        self, hidden: int, layers: int, *, latents: int = 64, heads: int = 8, inner: int | None = None
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, hidden) / hidden**0.5)
        self.layers = nn.Parameter(torch.zeros(layers + 1, hidden))
        self.attention = _CrossAttention(hidden, heads)
        self.up = nn.Linear(hidden, 2 * (inner or hidden))
        self.down = nn.Linear(inner or hidden, hidden)

    def forward(self, states: Sequence[torch.Tensor], shares: torch.Tensor) -> torch.Tensor:
        """See `Pooler`."""
        means = torch.stack([_mean(layer, shares) for layer in states], dim=1) + self.layers
        found = self.attention(self.latents.expand(len(shares), -1, -1), means)
        value, gate = self.up(found).chunk(2, dim=-1)
        vectors: torch.Tensor = (found + self.down(value * gelu(gate))).mean(dim=1)
        return vectors


class AttentionSet(Pooler):
    """Value by value, a mean whose weights are a softmax over the tokens of a linear map of their states.

    AttSets: Yang et al., "Robust Attentional Aggregation of Deep Feature Sets", arXiv 1808.00758.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.score = nn.Linear(hidden, hidden, bias=False)
        nn.init.zeros_(self.score.weight)  # starts as the mean

    def forward(self, states: Sequence[torch.Tensor], shares: torch.Tensor) -> torch.Tensor:
        """See `Pooler`."""
        scores = self.score(states[-1]) + shares.log().unsqueeze(-1)  # log 0 leaves a token out
        vectors: torch.Tensor = (scores.softmax(dim=1) * states[-1]).sum(dim=1)
        return vectors


class MeanQuery(Pooler):
    """The mean of the states asks, the states answer, and a second mean is taken by what they answer.

    A token with the state s and the weight w weighs w exp(sᵀ Q m) in it, where m is the mean by the weights alone, and
    s and m are taken at unit length. CLIP asks with the mean as well (Radford et al., arXiv 2103.00020, section 2.4).
    Q begins at minus the identity: what the whole text says is said by the other tokens too, and a token that is unlike
    them counts more.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.query = nn.Parameter(-torch.eye(hidden))

    def forward(self, states: Sequence[torch.Tensor], shares: torch.Tensor) -> torch.Tensor:
        """See `Pooler`."""
        asked = normalize(_mean(states[-1], shares), dim=-1, eps=1e-12) @ self.query.T
        # Divided afterwards: normalised states would be a second copy of the largest tensor there is.
        lengths = torch.linalg.vector_norm(states[-1], dim=-1).clamp_min(1e-12)
        answers = torch.einsum("nlh,nh->nl", states[-1], asked) / lengths
        return _mean(states[-1], shares * answers.exp())


class _CrossAttention(nn.Module):
    """Multi-head attention from one sequence to another."""

    heads: torch.Tensor

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        if hidden % heads:
            raise EncoderError(f"{heads} heads do not divide {hidden} values; choose another number of heads.")
        self.register_buffer("heads", torch.tensor(heads))
        self.query, self.key, self.value, self.output = (nn.Linear(hidden, hidden, bias=False) for _ in range(4))

    def forward(self, readers: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        heads = int(self.heads)
        split = [
            part.unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in (self.query(readers), self.key(read), self.value(read))
        ]
        mixed = scaled_dot_product_attention(split[0], split[1], split[2])
        found: torch.Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return found


def new_pooling(kind: Pooling, *, hidden: int, layers: int, heads: int = 8) -> Pooler:
    """An untrained pooling for a decoder with states of `hidden` values and this number of layers.

    Raises EncoderError for a kind that has no weights.
    """
    if kind == "generalised-mean":
        return GeneralisedMean()
    if kind == "latent-attention":
        return LatentAttention(hidden, heads=heads)
    if kind == "multi-layer":
        return MultiLayer(hidden, layers, heads=heads)
    if kind == "attention-set":
        return AttentionSet(hidden)
    if kind == "mean-query":
        return MeanQuery(hidden)
    raise EncoderError(f"Pooling {kind!r} has no weights to train.")


def stored_pooling(kind: Pooling, tensors: Mapping[str, np.ndarray]) -> Pooler:
    """The pooling whose state dict `tensors` is, in evaluation mode; without any, a generalised mean with power 3.

    Raises EncoderError when the tensors are those of another pooling, or none where some are needed.
    """
    if kind == "generalised-mean" and not tensors:
        return GeneralisedMean().eval()
    try:
        pooler = _empty(kind, tensors)
        pooler.load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()})
    except (KeyError, IndexError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise EncoderError(
            f"The encoder holds no weights for {kind} pooling ({reason}); choose another pooling, or train this one."
        ) from error
    return pooler.eval()


def _empty(kind: Pooling, tensors: Mapping[str, np.ndarray]) -> Pooler:
    if kind == "generalised-mean":
        return GeneralisedMean()
    if kind == "attention-set":
        return AttentionSet(len(tensors["score.weight"]))
    if kind == "mean-query":
        return MeanQuery(len(tensors["query"]))
    latents, hidden = tensors["latents"].shape
    heads, inner = int(tensors["attention.heads"]), tensors["down.weight"].shape[1]
    if kind == "latent-attention":
        return LatentAttention(hidden, latents=latents, heads=heads, inner=inner)
    return MultiLayer(hidden, len(tensors["layers"]) - 1, latents=latents, heads=heads, inner=inner)


def _mean(states: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    return torch.einsum("nl,nlh->nh", shares, states) / shares.sum(dim=1, keepdim=True).clamp_min(1e-12)


def _signed_power(values: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
    return values.sign() * values.abs().clamp_min(1e-12) ** power

"""Token weights that follow a corpus: how rare a token is there decides how much it counts, nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ragindex.encoder.batching import token_budget_batches
from ragindex.encoder.tokenizer import Tokenized
from ragindex.train.model import TrainableEncoder
from ragindex.train.trial import Text, Trial

__all__ = ["shift_towards"]


def shift_towards(texts: Sequence[Text], model: TrainableEncoder, trial: Trial, *, shifts: Sequence[float]) -> float:
    """Move the model's token weights towards the inverse document frequencies of `texts`, as far as that helps in the
    trial; the exponent that was chosen, 0 for none.

    w'(t) = w(t) * idf(t)^a, for the a of `shifts` that does best; idf(t) = log((n + 1) / (n_t + 1/2)), not below 0.05.
    """
    if model.log_weights is None:
        return 0.0
    rarity = _rarity(model, texts)
    original = model.log_weights.detach().clone()
    best, chosen = _dense(trial, model), 0.0
    for exponent in shifts:
        with torch.no_grad():
            model.log_weights.copy_(original + exponent * rarity)
        reached = _dense(trial, model)
        if reached > best:
            best, chosen = reached, exponent
    with torch.no_grad():
        model.log_weights.copy_(original + chosen * rarity)
    return chosen


class _Live:
    """An encoder in training, asked as `TextEncoder` is."""

    reader = None  # its vectors change with every step, and are all that is asked for

    def __init__(self, model: TrainableEncoder) -> None:
        self._model = model
        self.dimensions, self.max_tokens, self.fingerprint = model.dimensions, model.config.max_tokens, ""

    def encode_queries(self, texts: Sequence[str], *, instruction: str | None = None) -> np.ndarray:
        return self._encode(self._model.queries(texts, instruction=instruction))

    def encode_documents(self, texts: Sequence[str], *, titles: Sequence[str] | None = None) -> np.ndarray:
        return self._encode(self._model.documents(texts, titles=titles))

    @torch.inference_mode()
    def _encode(self, items: Sequence[Tokenized]) -> np.ndarray:
        result = np.empty((len(items), self.dimensions), dtype=np.float32)
        for rows in token_budget_batches([len(item.ids) for item in items], 8192):
            result[rows] = self._model([items[row] for row in rows]).cpu().numpy()
        return result


def _dense(trial: Trial, model: TrainableEncoder) -> float:
    model.eval()
    reached = float(trial.measure(_Live(model), trust=1.0).dense.mean())
    model.train()
    return reached


def _rarity(model: TrainableEncoder, texts: Sequence[Text]) -> torch.Tensor:
    """Logarithm of the inverse document frequency of each token over texts, (vocabulary,)."""
    assert model.log_weights is not None
    holders = np.zeros(len(model.log_weights))
    for item in model.documents([text.text for text in texts]):
        holders[np.unique(item.ids)] += 1
    rarity = np.log((len(texts) + 1) / (holders + 0.5))
    return torch.from_numpy(np.log(np.maximum(rarity, 0.05))).float().to(model.device)

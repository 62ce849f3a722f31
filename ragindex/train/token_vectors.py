"""A teacher's vector of every single token of its vocabulary, and of words: what a static encoder begins with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from ragindex.encoder.torch_forward import choose_device, choose_dtype, token_budget_batches

__all__ = ["token_vectors"]

_BUDGET = 8192  # padded tokens at a time


@torch.inference_mode()
def token_vectors(directory: Path, vocabulary: int, words: Sequence[str] = ()) -> np.ndarray:
    """Unit vectors of the tokens 0 to `vocabulary` - 1 and then of `words`, each read alone, float32 (n, d).

    directory: a mean-pooled transformer encoder with first and last tokens (the all-MiniLM family). `Encoder` embeds
    texts, and many tokens, such as "##ing", are what no text alone becomes.
    """
    tokenizer = AutoTokenizer.from_pretrained(directory)
    device = choose_device()
    model = AutoModel.from_pretrained(directory).eval().to(device)
    # bfloat16 moves a MiniLM vector by a cosine of 1e-5 and doubles the speed where the hardware has it.
    half = choose_dtype(device) == torch.bfloat16
    inputs = [[tokenizer.cls_token_id, token, tokenizer.sep_token_id] for token in range(vocabulary)]
    if words:
        inputs += tokenizer(list(words))["input_ids"]
    vectors = np.empty((len(inputs), model.config.hidden_size), np.float32)
    for group in token_budget_batches([len(ids) for ids in inputs], _BUDGET):
        longest = max(len(inputs[place]) for place in group)
        ids = torch.zeros(len(group), longest, dtype=torch.long)
        real = torch.zeros(len(group), longest, dtype=torch.long)
        for row, place in enumerate(group):
            ids[row, : len(inputs[place])] = torch.tensor(inputs[place])
            real[row, : len(inputs[place])] = 1
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            states = model(input_ids=ids.to(device), attention_mask=real.to(device)).last_hidden_state.float()
        pooled = (states * real.to(device).unsqueeze(-1)).sum(1)  # its length does not matter: it is normalised
        vectors[group] = normalize(pooled, dim=-1).cpu().numpy()
    return vectors

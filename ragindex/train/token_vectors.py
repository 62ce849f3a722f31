"""A teacher's vector of every single token of its vocabulary: what a static encoder begins with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from ragindex.encoder.torch_forward import choose_device, choose_dtype, token_budget_batches

__all__ = ["token_vectors"]

_BUDGET = 8192  # padded tokens at a time


@torch.inference_mode()
def token_vectors(directory: Path, vocabulary: int) -> np.ndarray:
    """Unit vectors of the tokens 0 to `vocabulary` - 1, each read alone, float32 (vocabulary, d).

    directory: a mean-pooled transformer encoder with first and last tokens (the all-MiniLM family). `Encoder` embeds
    texts, and many tokens, such as "##ing", are what no text alone becomes.
    """
    tokenizer = AutoTokenizer.from_pretrained(directory)
    device = choose_device()
    model = AutoModel.from_pretrained(directory).eval().to(device)
    # bfloat16 moves a MiniLM vector by a cosine of 1e-5 and doubles the speed where the hardware has it.
    half = choose_dtype(device) == torch.bfloat16
    ids = torch.tensor([[tokenizer.cls_token_id, token, tokenizer.sep_token_id] for token in range(vocabulary)])
    parts = []
    for group in token_budget_batches([ids.shape[1]] * vocabulary, _BUDGET):
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            states = model(input_ids=ids[group].to(device)).last_hidden_state.float()
        parts.append(normalize(states.mean(1), dim=-1).cpu().numpy())
    return np.concatenate(parts)

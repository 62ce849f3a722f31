"""Runs what sentence-transformers calls a model, a transformer with modules after it, in torch: sorted token-budget
batches, everything on the device, one copy out per batch.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import torch
from safetensors import SafetensorError
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, PreTrainedModel

from ragindex.encoder.architectures import is_encoder, is_two_sided
from ragindex.encoder.backbone import check_attention, set_attention, without_progress_bar
from ragindex.encoder.batching import Batch, Budget
from ragindex.encoder.checkpoint import Attention, Checkpoint
from ragindex.encoder.devices import choose_device, choose_dtype, keep_freed_memory, padded_tokens, send
from ragindex.encoder.foreign import check_modules, dimensions, trusted_modules
from ragindex.encoder.foreign_modules import Features, load_step
from ragindex.encoder.tokenizer import Tokenized
from ragindex.errors import BackboneError

__all__ = ["ForeignForward"]

# 1 - cosine; what is rounded in another order differs by less, what reads padding or its neighbours by more.
_TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 1e-2}
_HALVES = frozenset({"longt5", "mt5", "t5", "t5gemma", "umt5"})  # the encoder half of these serves


class ForeignForward:
    """Unit vectors for many texts. Calls from several threads are served one after the other."""

    is_static = False  # layers are run as they are

    def __init__(self, checkpoint: Checkpoint, *, device: str | None = None, dtype: torch.dtype | None = None) -> None:
        modules = trusted_modules(checkpoint.directory)
        check_modules(checkpoint.directory, modules)
        self.device = choose_device(device)
        self.dtype = dtype or choose_dtype(self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self._model = _load_model(checkpoint, self.device, self.dtype)
        self._steps = [step for module in modules[1:] if (step := load_step(module, self.device)) is not None]
        self._budget = Budget(padded_tokens(self.device))
        self._lock = threading.Lock()
        self._check(checkpoint.vocabulary() or 100, dimensions(modules))

    def __call__(self, batch: Sequence[Tokenized]) -> np.ndarray:
        """Unit vectors, float32 (len(batch), d), in the order of `batch`.

        Raises EncoderError for a text that the device's memory cannot hold.
        """
        with self._lock:
            parts = list(self._budget.compute(batch, self._run))
            vectors = torch.cat([part.rows for part in parts]).cpu().numpy()
        result = np.empty_like(vectors)
        result[[place for part in parts for place in part.places]] = vectors
        return result

    @torch.inference_mode()
    def _run(self, items: list[Tokenized]) -> torch.Tensor:
        """Unit vectors on the device, (len(items), d)."""
        batch = Batch.of(items)
        ids = send(batch.ids, self.device)
        mask = None if batch.real.all() else send(batch.real, self.device).long()
        states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        pooled = send(batch.pooled, self.device)
        features = Features(ids, states, pooled, pooled, states[:, 0])
        for step in self._steps:
            step(features)
        return normalize(features.vectors, dim=-1, eps=1e-12)

    def _check(self, vocabulary: int, stated: int) -> None:
        """Raise BackboneError when vectors have another length than their modules state, or depend on what else is in
        their batch, as where masks are ignored.
        """
        generator = np.random.default_rng(0)
        items = [
            Tokenized(generator.integers(vocabulary // 4, vocabulary, length), np.ones(length, dtype=bool))
            for length in (5, 9, 14)
        ]
        alone, together = torch.cat([self._run([item]) for item in items]), self._run(items)
        if alone.shape[1] != stated:
            raise BackboneError(f"The modules give vectors of {alone.shape[1]} values, their settings say {stated}.")
        deviation = float(1 - (alone * together).sum(dim=1).min())
        if not deviation <= _TOLERANCES.get(self.dtype, 1e-2):
            raise BackboneError(
                f"The vectors of {type(self._model).__name__} depend on what else is in their batch (1 - cosine up to "
                f"{deviation:.1g}), so it cannot serve as an encoder."
            )


def _load_model(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """The bare transformer, from local files, safetensors and the code of transformers alone, self-tested.

    Raises BackboneError with the reason when it cannot be loaded, or does not read as it was made to.
    """
    folder = checkpoint.backbone
    settings = checkpoint.model_config()
    kind = AutoModelForTextEncoding if settings.get("model_type") in _HALVES else AutoModel
    try:
        with without_progress_bar():
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            config.use_cache = False
            model, info = kind.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise BackboneError(f"The model in {folder} cannot be loaded: {reason}.") from error
    missing = [name for name in info["missing_keys"] if not name.startswith("pooler.")]  # whose output nobody reads
    if missing:  # transformers would fill them with random numbers
        raise BackboneError(f"The weights in {folder} are incomplete: {min(missing)} is missing; copy the model again.")
    loaded: PreTrainedModel = model.to(device).eval()
    attention: Attention = "bidirectional" if is_encoder(settings) or is_two_sided(settings) else "causal"
    if not is_encoder(settings):
        set_attention(loaded, attention)
    check_attention(loaded, attention)
    return loaded

"""An encoder as MTEB (Muennighoff et al., arXiv 2210.07316) wants one: its `EncoderProtocol`, version 2.

    import mteb
    from ragindex import Encoder
    from ragindex.evaluation.mteb import MtebEncoder

    tasks = mteb.get_tasks(tasks=["STSBenchmark", "NFCorpus"])
    mteb.evaluate(MtebEncoder(Encoder.load("bundled")), tasks)

The data sets of MTEB come from the network; nothing else here does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ragindex.errors import MissingDependencyError
from ragindex.evaluation.clipping import clipped_documents, clipped_queries
from ragindex.evaluation.datasets import Passage

if TYPE_CHECKING:
    import torch

    from ragindex.encoder import Encoder

__all__ = ["MtebEncoder"]

Instructions = Mapping[str, str] | Literal["own", "tasks"]


class MtebEncoder:
    """Wraps an encoder for `mteb.evaluate`.

    Queries go through `encode_queries` and documents, with their titles, through `encode_documents`. Where a task does
    not tell the two apart (similarity, classification, clustering), everything is a query, as in LLM2Vec (arXiv
    2404.05961). Texts are cut to what the encoder reads, as everyone does on this benchmark.

    instructions: "own" gives queries the encoder's default instruction and symmetric tasks none; "tasks" gives each
    task the one that MTEB defines for it, for encoders trained to follow instructions; a mapping has instructions by
    task name, by task type ("STS", "Retrieval", …) or under "" for all others. name: on the leaderboard,
    "organisation/model".
    """

    def __init__(self, encoder: Encoder, *, name: str | None = None, instructions: Instructions = "own") -> None:
        self.encoder = encoder
        self.name = name or _model_name(encoder.name)
        self._instructions = instructions

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,  # noqa: ARG002 - the protocol's, as are all of them
        hf_subset: str,  # noqa: ARG002
        prompt_type: str | None = None,
        **kwargs: Any,  # noqa: ARG002 - batch size and progress, which are the encoder's own business
    ) -> NDArray[np.float32]:
        """Unit vectors, float32 (n, dimensions), of a data loader's batches: {"text": [...]}, of documents also "body"
        and "title".
        """
        if prompt_type == "document":
            passages = clipped_documents(self.encoder, _passages(inputs))
            texts, titles = [each.text for each in passages], [each.title for each in passages]
            return self.encoder.encode_documents(texts, titles=titles)
        instruction = self._instruction(task_metadata, prompt_type)
        texts = [text for batch in inputs for text in batch["text"]]
        return self.encoder.encode_queries(
            clipped_queries(self.encoder, texts, instruction=instruction), instruction=instruction
        )

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosines of all pairs, (n, m)."""
        first, second = _tensor(embeddings1), _tensor(embeddings2)
        return first @ second.T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosines of corresponding pairs, (n,)."""
        first, second = _tensor(embeddings1), _tensor(embeddings2)
        return (first * second).sum(dim=-1)

    @property
    def mteb_model_meta(self) -> Any:
        """What results are filed under: the name, and the fingerprint as the revision.

        Raises MissingDependencyError without mteb, which the extra `mteb` brings.
        """
        try:
            from mteb.models.model_meta import ModelMeta, ScoringFunction
        except ImportError as error:
            raise MissingDependencyError(
                "This needs MTEB 2; install it with `pip install 'ragindex[mteb]'`."
            ) from error
        known = {
            "name": self.name,
            "revision": self.encoder.fingerprint,
            "max_tokens": self.encoder.max_tokens,
            "embed_dim": self.encoder.dimensions,
            "framework": ["PyTorch"],
            "similarity_fn_name": ScoringFunction.COSINE,
            "use_instructions": self._instructions != "own" or bool(self.encoder.config.prompts.instruction),
        }
        return ModelMeta.create_empty(overwrites=known)

    def _instruction(self, task: Any, prompt_type: str | None) -> str | None:
        """None is the encoder's default, an empty string none at all."""
        own = None if prompt_type == "query" else ""
        if self._instructions == "own":
            return own
        if self._instructions == "tasks":
            return _task_prompt(task, prompt_type)
        for key in (task.name, task.type, ""):
            if key in self._instructions:
                return self._instructions[key]
        return own


def _task_prompt(task: Any, prompt_type: str | None) -> str:
    """What MTEB tells a model about a task: its own text, for queries where there are two, else that of its kind."""
    from mteb.abstasks.abstask import get_abstask_prompt

    prompt = task.prompt
    if isinstance(prompt, Mapping):
        prompt = prompt.get(prompt_type or "query")
    return str(prompt or get_abstask_prompt(task.name))


def _passages(inputs: Iterable[Mapping[str, Any]]) -> Iterable[Passage]:
    for batch in inputs:
        # "text" has the title in front of the body, which is the prompt's business here.
        titles = batch.get("title")
        if titles is None or "body" not in batch:
            yield from (Passage("", text) for text in batch["text"])
        else:
            yield from map(Passage, titles, batch["body"])


def _tensor(values: Any) -> torch.Tensor:
    """Unit vectors (n, d) in float32; what has been cut or quantised on the way is brought back to length 1."""
    import torch

    return torch.nn.functional.normalize(torch.atleast_2d(torch.as_tensor(values)).float(), dim=-1)


def _model_name(name: str) -> str:
    """MTEB wants an organisation before every name."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in {"", ".", ".."}]
    return name if len(parts) == 2 and "/".join(parts) == name else f"ragindex/{parts[-1] if parts else 'encoder'}"

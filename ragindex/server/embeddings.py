"""OpenAI's embeddings interface over the encoder of the store: `/v1/embeddings` and `/v1/models`.

OpenAI's request knows no difference between queries and documents, but an encoder does. A model is therefore offered
under three names: `name` and `name:document` embed documents, `name:query` embeds queries; a field `input_type` says
the same. Token ids, which some clients send in place of text, belong to another vocabulary and are refused.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from ragindex.encoder import Encoder
from ragindex.errors import EncoderError
from ragindex.server import limits
from ragindex.server.desk import Desk, Side, Texts
from ragindex.server.failures import Refusal
from ragindex.server.schemas import WHOLE, Name, Text
from ragindex.server.searching import FAILS, AtDesk

__all__ = ["EmbeddingsReply", "EmbeddingsRequest", "ModelList", "ModelReply", "routes"]

_SIDES: dict[str, Side] = {"": "document", "document": "document", "query": "query"}
_NO_IDS = (
    "Token ids belong to another model's vocabulary; send text "
    "(with LangChain's OpenAIEmbeddings set check_embedding_ctx_length=False)"
)

routes = APIRouter(prefix="/v1", tags=["OpenAI"], responses=FAILS)

Input = Annotated[str, StringConstraints(min_length=1, max_length=limits.MAX_INPUT_CHARACTERS)]


class EmbeddingsRequest(BaseModel):
    """OpenAI's request, with the fields `input_type` and `instruction` besides. Unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    input: Input | Annotated[list[Input], Field(min_length=1, max_length=limits.MAX_INPUTS)] = Field(
        description="A text or several; no token ids.", examples=[["Keys are rotated every ninety days."]]
    )
    model: Name = Field(description="A name that /v1/models lists.", examples=["bundled:query"])
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=limits.MAX_DIMENSIONS), WHOLE] | None = Field(
        default=None, description="Cut the vectors to their first values and normalise them again (Matryoshka)."
    )
    input_type: Literal["query", "document"] | None = Field(
        default=None, description="What the texts are; in place of the model's suffix."
    )
    instruction: Text | None = Field(
        default=None, description="What the encoder is told about queries; null is its default, '' nothing."
    )
    user: str | None = Field(default=None, description="Taken and ignored.")

    @field_validator("input", mode="before")
    @classmethod
    def _no_token_ids(cls, value: Any) -> Any:
        if isinstance(value, list) and any(isinstance(item, int | list) for item in value):
            raise ValueError(_NO_IDS)
        return value


class EmbeddingReply(BaseModel):
    """One vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class UsageReply(BaseModel):
    """Tokens of the encoder's own tokenizer, prompt and special tokens included."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsReply(BaseModel):
    """OpenAI's reply."""

    object: Literal["list"]
    data: list[EmbeddingReply]
    model: str
    usage: UsageReply


class ModelReply(BaseModel):
    """A name under which the encoder can be asked."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "ragindex"
    dimensions: int
    max_tokens: int


class ModelList(BaseModel):
    """The names under which the encoder can be asked."""

    object: Literal["list"] = "list"
    data: list[ModelReply]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that was found to be in order."""

    texts: Sequence[str]
    kind: Texts
    tokens: int


@routes.get("/models")
async def models(desk: AtDesk) -> ModelList:
    """The encoder of the store under its three names."""
    async with desk.admitted():
        return ModelList(data=await desk.call(lambda: _models(desk.shelves.index().encoder)))


@routes.get("/models/{name:path}")
async def model(desk: AtDesk, name: str) -> ModelReply:
    """One of the names."""
    async with desk.admitted():
        known = await desk.call(lambda: _models(desk.shelves.index().encoder))
    for entry in known:
        if entry.id == name:
            return entry
    raise _unknown(name, known[0].id)


@routes.post("/embeddings", response_model=EmbeddingsReply)
async def embeddings(desk: AtDesk, asked: EmbeddingsRequest) -> Response:
    """Unit vectors of texts, in their order."""
    async with desk.admitted():
        found = await desk.call(lambda: _checked(desk, asked))
        vectors = await desk.encode(found.texts, kind=found.kind)
        # Thousands of numbers take a while to write down, so that is done in a thread too.
        body = await desk.call(lambda: _written(vectors, asked, found.tokens))
    return Response(body, media_type="application/json")


def _models(encoder: Encoder) -> list[ModelReply]:
    names = [model_name(encoder) + suffix for suffix in ("", ":query", ":document")]
    return [ModelReply(id=name, dimensions=encoder.dimensions, max_tokens=encoder.max_tokens) for name in names]


def model_name(encoder: Encoder) -> str:
    """What clients call the encoder: its name or hub id, of a directory the last part, for its place is nobody's
    business.
    """
    given = Path(encoder.name)
    return given.name if given.is_absolute() or given.is_dir() else encoder.name


def _checked(desk: Desk, asked: EmbeddingsRequest) -> _Asked:
    encoder = desk.shelves.index().encoder
    own = model_name(encoder)
    side = _side(asked, own)
    if asked.dimensions is not None and asked.dimensions > encoder.dimensions:
        raise Refusal(400, f"{own} has {encoder.dimensions} dimensions, not {asked.dimensions}.", param="dimensions")
    if asked.instruction is not None and side == "document":
        raise Refusal(400, "An instruction belongs to queries; ask the model as NAME:query.", param="instruction")
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    prompts = encoder.config.prompts
    if side == "query":
        prompted = [prompts.for_query(text, asked.instruction) for text in texts]
    else:
        prompted = [prompts.for_document(text) for text in texts]
    try:
        tokens = sum(len(item.ids) for item in encoder.tokenizer.tokenize(prompted))
    except EncoderError as error:
        raise Refusal(400, str(error), param="input", code="context_length_exceeded") from error
    return _Asked(texts, Texts(encoder.fingerprint, side, asked.instruction), tokens)


def _side(asked: EmbeddingsRequest, own: str) -> Side:
    """What the texts are, by the model's suffix or by `input_type`; documents where nothing is said."""
    if asked.model == own:
        return _SIDES[asked.input_type or ""]
    name, _, suffix = asked.model.rpartition(":")
    if name != own or suffix not in ("query", "document"):
        raise _unknown(asked.model, own)
    if asked.input_type not in (None, suffix):
        raise Refusal(400, f"The model says {suffix} but input_type says {asked.input_type}.", param="input_type")
    return _SIDES[suffix]


def _unknown(name: str, own: str) -> Refusal:
    return Refusal(
        404,
        f"There is no model {name!r}; this server has {own}, as {own}:query for queries and {own}:document "
        "for documents.",
        param="model",
        code="model_not_found",
    )


def _written(vectors: Sequence[np.ndarray], asked: EmbeddingsRequest, tokens: int) -> bytes:
    matrix = np.asarray(vectors, dtype="<f4")
    if asked.dimensions is not None and asked.dimensions < matrix.shape[1]:
        matrix = matrix[:, : asked.dimensions]
        matrix = np.ascontiguousarray(matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12))
    written = (
        [base64.b64encode(row).decode() for row in matrix] if asked.encoding_format == "base64" else matrix.tolist()
    )
    reply = {
        "object": "list",
        "data": [{"object": "embedding", "index": number, "embedding": row} for number, row in enumerate(written)],
        "model": asked.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return json.dumps(reply, separators=(",", ":")).encode()

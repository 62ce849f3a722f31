"""OpenAI's interface, asked by OpenAI's own client over a real connection."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import openai
import pytest
from server_kit import fill, running, sentence

from ragindex import Encoder
from ragindex.server import Access

TEXTS = ["Rotate the signing key.", "The kettle boils.", "Pflanzen wandeln Licht um: 光合作用"]
TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_dir: Path) -> Path:
    return fill(tmp_path_factory.mktemp("documents"), tiny_encoder_dir)


@pytest.fixture(scope="module")
def url(store: Path) -> Iterator[str]:
    with running(store) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def encoder(tiny_encoder_dir: Path) -> Encoder:
    return Encoder.load(tiny_encoder_dir)


def vectors(reply: openai.types.CreateEmbeddingResponse) -> np.ndarray:
    assert [item.index for item in reply.data] == list(range(len(reply.data)))
    return np.array([item.embedding for item in reply.data], dtype=np.float32)


def test_vectors_are_the_encoders(client: openai.OpenAI, encoder: Encoder) -> None:
    """The client asks for base64 on its own account."""
    for model in ("tiny", "tiny:document"):
        reply = client.embeddings.create(model=model, input=TEXTS)
        assert reply.model == model
        np.testing.assert_allclose(vectors(reply), encoder.encode_documents(TEXTS), atol=1e-6)
    reply = client.embeddings.create(model="tiny:query", input=TEXTS)
    np.testing.assert_allclose(vectors(reply), encoder.encode_queries(TEXTS), atol=1e-6)


def test_float_and_base64_are_the_same_numbers(client: openai.OpenAI) -> None:
    plain = client.embeddings.create(model="tiny", input=TEXTS, encoding_format="float")
    packed = client.embeddings.create(model="tiny", input=TEXTS, encoding_format="base64")
    raw = np.stack([np.frombuffer(base64.b64decode(str(item.embedding)), "<f4") for item in packed.data])
    np.testing.assert_array_equal(vectors(plain), raw)


def test_one_text_may_come_alone(client: openai.OpenAI) -> None:
    alone = vectors(client.embeddings.create(model="tiny", input=TEXTS[0]))
    among = vectors(client.embeddings.create(model="tiny", input=TEXTS))[:1]
    np.testing.assert_allclose(alone, among, atol=1e-5)


def test_dimensions_cut_and_normalise(client: openai.OpenAI, tiny_encoder_dir: Path) -> None:
    cut = vectors(client.embeddings.create(model="tiny", input=TEXTS, dimensions=8))
    np.testing.assert_allclose(cut, Encoder.load(tiny_encoder_dir, dimensions=8).encode_documents(TEXTS), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1.0, atol=1e-6)


def test_input_type_and_instruction_say_what_texts_are(client: openai.OpenAI, encoder: Encoder) -> None:
    more = {"input_type": "query", "instruction": "Find the passage"}
    reply = client.embeddings.create(model="tiny", input=TEXTS, extra_body=more)
    np.testing.assert_allclose(vectors(reply), encoder.encode_queries(TEXTS, instruction="Find the passage"), atol=1e-6)


def test_usage_counts_the_encoders_tokens(client: openai.OpenAI, encoder: Encoder) -> None:
    usage = client.embeddings.create(model="tiny", input=TEXTS).usage
    expected = sum(encoder.tokenizer.count(text) + encoder.tokenizer.specials for text in TEXTS)
    assert (usage.prompt_tokens, usage.total_tokens) == (expected, expected)


def test_more_texts_than_a_batch_keep_their_order(client: openai.OpenAI, encoder: Encoder) -> None:
    texts = [f"note number {number}" for number in range(200)]
    found = vectors(client.embeddings.create(model="tiny", input=texts))
    nearest = (found @ encoder.encode_documents(texts).T).argmax(axis=1)
    assert nearest.tolist() == list(range(200))


@pytest.mark.parametrize("ids", [[1, 2, 3], [[1, 2], [3]]])
def test_token_ids_are_refused_with_the_way_out(client: openai.OpenAI, ids: list[int]) -> None:
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False") as caught:
        client.embeddings.create(model="tiny", input=ids)
    assert caught.value.param == "input"


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "tiny:query", "tiny:document"]
    assert client.models.retrieve("tiny:query").id == "tiny:query"
    for ask in (
        lambda: client.models.retrieve("gpt-9"),
        lambda: client.embeddings.create(model="text-embedding-3-small", input="x"),
        lambda: client.embeddings.create(model="tiny:passage", input="x"),
    ):
        with pytest.raises(openai.NotFoundError, match="this server has tiny, as tiny:query for queries") as caught:
            ask()
        assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "'input' is missing"),
        ({"input": "x"}, "'model' is missing"),
        ({"input": "", "model": "tiny"}, "'input' is wrong"),
        ({"input": [], "model": "tiny"}, "'input' is wrong"),
        ({"input": ["x", ""], "model": "tiny"}, "'input' is wrong"),
        ({"input": ["x"] * 2049, "model": "tiny"}, "'input' is wrong"),
        ({"input": ["x", None], "model": "tiny"}, "'input' is wrong"),
        ({"input": ["x", True], "model": "tiny"}, "check_embedding_ctx_length"),
        ({"input": "word " * 600, "model": "tiny"}, "longer than this encoder's limit of 512"),
        ({"input": "x", "model": "tiny", "dimensions": 25}, "tiny has 24 dimensions, not 25."),
        ({"input": "x", "model": "tiny", "dimensions": 0}, "'dimensions' is wrong"),
        ({"input": "x", "model": "tiny", "encoding_format": "int8"}, "'encoding_format' is wrong"),
        ({"input": "x", "model": "tiny:query", "input_type": "document"}, "The model says query"),
        ({"input": "x", "model": "tiny", "instruction": "Find"}, "belongs to queries"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(url: str, body: object, message: str) -> None:
    reply = httpx2.post(f"{url}/v1/embeddings", json=body, timeout=120)
    assert reply.status_code == 400
    assert message in sentence(reply)


def test_the_api_key_is_the_token(store: Path) -> None:
    with running(store, access=Access(token=TOKEN)) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0) as client:
            assert len(client.embeddings.create(model="tiny", input=TEXTS).data) == 3
        with (
            openai.OpenAI(base_url=f"{url}/v1", api_key="sk-wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError, match="wants its token"),
        ):
            client.embeddings.create(model="tiny", input=TEXTS)

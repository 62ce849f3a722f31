"""A saved encoder is a sentence-transformers model with the same vectors, and such a model is an encoder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import HIDDEN, SENTENCES, tiny_encoder

from ragindex.encoder import PROMPT_STYLES, Encoder, Prompts, torch_forward

TEXTS = [*SENTENCES, "key", "a", "café – 東京", " ".join(SENTENCES[:3])]
PREFIXED = Prompts(query="query: {text}", untitled_document="passage: {text}", document="passage: {title} {text}")


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_forward, "choose_dtype", lambda device: torch.float32)


def load(directory: Path) -> SentenceTransformer:
    return SentenceTransformer(str(directory), device="cpu", local_files_only=True)


def check_same(encoder: Encoder, theirs: SentenceTransformer) -> None:
    """An empty text is left out: without special tokens it has no tokens, and sentence-transformers no vector."""
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), theirs.encode_document(TEXTS), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), theirs.encode_query(TEXTS), atol=1e-5)
    assert theirs.similarity_fn_name == "cosine"
    assert theirs.max_seq_length == encoder.max_tokens
    assert theirs.get_embedding_dimension() == encoder.dimensions


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"specials": False},
        {"head": False},
        {"head": False, "specials": False, "tokenizer": "bpe"},
        {"tokenizer": "bpe", "prompts": PREFIXED},
        {"attention": "causal"},
        {"pooling": "last", "specials": False},
        {"pooling": "last", "specials": False, "head": False, "prompts": PROMPT_STYLES["e5-instruct"]},
        {"pooling": "weighted-mean", "specials": False, "head": False},
        {"specials": False, "head": False, "prompts": PROMPT_STYLES["e5-instruct"]},
    ],
    ids=str,
)
def test_sentence_transformers_gives_the_same_vectors(tmp_path: Path, options: dict[str, object]) -> None:
    encoder = Encoder.load(tiny_encoder(tmp_path / "made", **options), device="cpu")
    encoder.save(tmp_path / "saved")
    check_same(encoder, load(tmp_path / "saved"))


def test_what_was_cut_is_cut_there_too(tmp_path: Path) -> None:
    for head in (True, False):
        directory = tiny_encoder(tmp_path / f"made {head}", head=head)
        encoder = Encoder.load(directory, dimensions=12, device="cpu")
        encoder.save(tmp_path / f"saved {head}")
        assert Encoder.load(tmp_path / f"saved {head}").fingerprint == encoder.fingerprint
        check_same(encoder, load(tmp_path / f"saved {head}"))


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "last"},
        {"pooling": "weighted-mean"},
        {"prompts": PROMPT_STYLES["e5-instruct"]},
        {"prompts": Prompts(instruction="Find", instructed_query="{instruction} {text}"), "tokenizer": "bpe"},
    ],
    ids=str,
)
def test_what_the_format_cannot_say_is_refused_there_and_not_got_wrong(
    tmp_path: Path, options: dict[str, object]
) -> None:
    directory = tiny_encoder(tmp_path / "made", **options)
    with pytest.raises((ValueError, ImportError, OSError)):
        load(directory)
    encoder = Encoder.load(directory)
    encoder.save(tmp_path / "saved")
    again = Encoder.load(tmp_path / "saved")
    assert again.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(again.encode_queries(TEXTS[:1]), encoder.encode_queries(TEXTS[:1]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"head": False},
        {"specials": False},
        {"attention": "causal", "specials": False},
        {"pooling": "last", "specials": False, "prompts": PROMPT_STYLES["e5-instruct"]},
        {"prompts": PREFIXED},
        {"prompts": PROMPT_STYLES["embeddinggemma"]},
    ],
    ids=str,
)
def test_the_form_alone_says_as_much(tmp_path: Path, options: dict[str, object]) -> None:
    """Without ragindex.json the directory is anyone's sentence-transformers model."""
    directory = tiny_encoder(tmp_path / "made", **options)
    before = Encoder.load(directory, device="cpu")
    shutil.copytree(directory, tmp_path / "bare")
    (tmp_path / "bare" / "ragindex.json").unlink()
    after = Encoder.load(tmp_path / "bare", device="cpu")
    assert after.config.attention == before.config.attention
    for name in ("query", "untitled_document"):
        assert getattr(after.config.prompts, name) == getattr(before.config.prompts, name)
    assert after.config.prompts.for_query("key") == before.config.prompts.for_query("key")
    check_same(after, load(tmp_path / "bare"))
    np.testing.assert_allclose(after.encode_documents(TEXTS), before.encode_documents(TEXTS), atol=1e-5)
    after.save(tmp_path / "again")
    assert Encoder.load(tmp_path / "again").fingerprint == after.fingerprint


def saved_by_sentence_transformers(directory: Path, *, pooling: str = "mean", dense: int = 0) -> SentenceTransformer:
    """A directory as that library writes it today, from its own modules."""
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

    torch.manual_seed(0)
    source = tiny_encoder(directory.parent / "source", head=False, attention="causal")
    modules = [Transformer(str(source)), Pooling(HIDDEN, pooling_mode=pooling)]
    modules += [Dense(HIDDEN, HIDDEN, activation_function=None) for _ in range(dense)]
    model = SentenceTransformer(
        modules=[*modules, Normalize()], prompts={"query": "q: ", "document": "d: "}, device="cpu"
    )
    model.save(str(directory), create_model_card=False)
    return model


@pytest.mark.parametrize(("pooling", "dense"), [("mean", 0), ("mean", 2), ("weightedmean", 1), ("lasttoken", 0)])
def test_a_model_that_sentence_transformers_wrote_loads(tmp_path: Path, pooling: str, dense: int) -> None:
    theirs = saved_by_sentence_transformers(tmp_path / "model", pooling=pooling, dense=dense)
    encoder = Encoder.load(tmp_path / "model", device="cpu")
    assert encoder.config.attention == "causal"
    assert encoder.config.pool_special
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), theirs.encode_document(TEXTS), atol=1e-5)
    if pooling != "lasttoken":
        np.testing.assert_allclose(encoder.encode_queries(TEXTS), theirs.encode_query(TEXTS), atol=1e-5)

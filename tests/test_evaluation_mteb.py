"""The adapter for MTEB, with batches as its data loaders give them."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny import SENTENCES, tiny_encoder

from ragindex import Encoder
from ragindex.encoder import Prompts
from ragindex.errors import MissingDependencyError
from ragindex.evaluation.mteb import MtebEncoder

TOLD = Prompts(query="ask: {text}", instructed_query="{instruction}: {text}", instruction="Find answers")
STS = SimpleNamespace(name="LocalSTS", type="STS", prompt=None)
RETRIEVAL = SimpleNamespace(name="LocalRetrieval", type="Retrieval", prompt={"query": "Find what is asked for"})


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(tiny_encoder(tmp_path_factory.mktemp("told") / "mine", prompts=TOLD, max_tokens=64))


def encode(adapter: MtebEncoder, batches: list[dict[str, Any]], task: Any, prompt_type: str | None) -> np.ndarray:
    return adapter.encode(
        iter(batches), task_metadata=task, hf_split="test", hf_subset="default", prompt_type=prompt_type, batch_size=2
    )


def test_documents_come_with_their_titles_and_queries_with_the_instruction(encoder: Encoder) -> None:
    adapter = MtebEncoder(encoder)
    batches = [
        {"text": ["Keys " + SENTENCES[0]], "body": [SENTENCES[0]], "title": ["Keys"]},
        {"text": [SENTENCES[1], SENTENCES[2]], "body": [SENTENCES[1], SENTENCES[2]]},
    ]
    expected = encoder.encode_documents(SENTENCES[:3], titles=["Keys", "", ""])
    np.testing.assert_allclose(encode(adapter, batches, RETRIEVAL, "document"), expected, atol=1e-5)
    texts = [{"text": list(SENTENCES[:2])}, {"text": [SENTENCES[2]]}]
    asked = encode(adapter, texts, RETRIEVAL, "query")
    np.testing.assert_allclose(asked, encoder.encode_queries(SENTENCES[:3]), atol=1e-5)
    assert np.abs(asked - expected).max() > 0.01


def test_symmetric_tasks_are_queries_without_the_instruction_for_retrieval(encoder: Encoder) -> None:
    found = encode(MtebEncoder(encoder), [{"text": list(SENTENCES[:3])}], STS, None)
    np.testing.assert_allclose(found, encoder.encode_queries(SENTENCES[:3], instruction=""), atol=1e-5)


def test_instructions_by_task_name_then_type_then_for_all(encoder: Encoder) -> None:
    given = {"LocalRetrieval": "By name", "STS": "By type", "": "For all"}
    adapter = MtebEncoder(encoder, instructions=given)
    other = SimpleNamespace(name="Other", type="Clustering", prompt=None)
    for task, kind, told in ((RETRIEVAL, "query", "By name"), (STS, None, "By type"), (other, None, "For all")):
        expected = encoder.encode_queries(SENTENCES[:2], instruction=told)
        np.testing.assert_allclose(encode(adapter, [{"text": list(SENTENCES[:2])}], task, kind), expected, atol=1e-5)
    some = MtebEncoder(encoder, instructions={"STS": "By type"})
    expected = encoder.encode_queries(SENTENCES[:2])
    np.testing.assert_allclose(encode(some, [{"text": list(SENTENCES[:2])}], RETRIEVAL, "query"), expected, atol=1e-5)


def test_long_texts_and_titles_are_cut_to_what_the_encoder_reads(encoder: Encoder) -> None:
    adapter = MtebEncoder(encoder)
    long = " ".join(SENTENCES * 3)
    document = {"text": ["x"], "body": [long], "title": [long]}
    assert encode(adapter, [document], RETRIEVAL, "document").shape == (1, encoder.dimensions)
    first = encode(adapter, [{"text": [long, long + " and more"]}], STS, None)
    np.testing.assert_allclose(first[0], first[1], atol=1e-5)
    assert encode(adapter, [], STS, None).shape == (0, encoder.dimensions)


def test_similarities_are_cosines(encoder: Encoder) -> None:
    adapter = MtebEncoder(encoder)
    vectors = encoder.encode_queries(SENTENCES[:3])
    np.testing.assert_allclose(adapter.similarity(vectors, 3 * vectors[:2]), vectors @ vectors[:2].T, atol=1e-5)
    np.testing.assert_allclose(adapter.similarity_pairwise(vectors, vectors), np.ones(3), atol=1e-5)
    np.testing.assert_allclose(adapter.similarity(vectors[0], vectors), vectors[:1] @ vectors.T, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bundled", "ragindex/bundled"),
        ("organisation/model", "organisation/model"),
        ("./models/mine/", "ragindex/mine"),
        ("/models/mine", "ragindex/mine"),
    ],
)
def test_names_have_an_organisation(name: str, expected: str) -> None:
    named = SimpleNamespace(name=name)
    assert MtebEncoder(named).name == expected  # type: ignore[arg-type]
    assert MtebEncoder(named, name="us/best").name == "us/best"  # type: ignore[arg-type]


def test_without_mteb_the_extra_is_named(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mteb", "mteb.models.model_meta"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"ragindex\[mteb\]"):
        _ = MtebEncoder(encoder).mteb_model_meta


@pytest.mark.filterwarnings("ignore")  # MTEB has its own
def test_mteb_takes_it_for_an_encoder(encoder: Encoder) -> None:
    protocols = pytest.importorskip("mteb.models.models_protocols", reason="MTEB is not installed")
    import mteb
    from mteb.mocks import mock_tasks

    adapter = MtebEncoder(encoder, instructions="tasks")
    assert isinstance(adapter, protocols.EncoderProtocol)
    assert adapter.mteb_model_meta.revision == encoder.fingerprint
    for task in (mock_tasks.MockRetrievalTask(), mock_tasks.MockSTSTask()):
        found = mteb.evaluate(adapter, task, cache=None, show_progress_bar=False)
        assert 0.0 <= found.task_results[0].get_score() <= 1.0

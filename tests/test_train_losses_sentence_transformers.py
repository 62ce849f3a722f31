"""Where sentence-transformers has a loss, ours has its value and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import losses as theirs
from tiny import SENTENCES, tiny_encoder
from torch import Tensor

from ragindex.encoder import Encoder, torch_forward
from ragindex.train.losses import (
    DIRECTIONS,
    Contrast,
    GuideMargin,
    Hardness,
    InfoNCE,
    Matryoshka,
    angle_similarity,
    cosent,
    cosine_regression,
    global_orthogonality,
    info_nce,
    list_cosines,
    listwise_kl,
    margin_mse,
    matryoshka,
    pair_cosines,
    spread_out,
)

TEXTS = [" ".join(sentence.split()[start : start + 6]) for sentence in SENTENCES for start in (0, 4)]


@pytest.fixture
def leaves() -> list[Tensor]:
    """What is trained: vectors before they are brought to unit length, since their losses do so once more."""
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(6, 12, generator=generator) + 1).requires_grad_() for _ in range(4)]


@pytest.fixture
def columns(leaves: list[Tensor]) -> list[Tensor]:
    """Queries, positives and two columns of negatives."""
    return [torch.nn.functional.normalize(leaf, dim=-1) for leaf in leaves]


def contrast_of(columns: list[Tensor]) -> Contrast:
    negatives = torch.stack(columns[2:], dim=1) if columns[2:] else None
    return Contrast(columns[0], columns[1], negatives)


def check(ours: Tensor, expected: Tensor, leaves: list[Tensor]) -> None:
    assert expected.item() != 0
    torch.testing.assert_close(ours, expected)
    for mine, other in zip(gradients(ours, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


def gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, leaves, retain_graph=True, materialize_grads=True)
    assert any(gradient.any() for gradient in found)
    return list(found)


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize(
    ("directions", "partition"),
    [
        (("q-d",), "joint"),
        (("q-d", "q-q"), "joint"),
        (("q-d", "d-d"), "joint"),
        (("q-d", "d-q"), "joint"),
        (DIRECTIONS, "joint"),
        (("q-d", "d-q"), "separate"),
    ],
    ids=str,
)
def test_directions(
    leaves: list[Tensor], columns: list[Tensor], width: int, directions: tuple[str, ...], partition: str
) -> None:
    words = {"q": "query", "d": "doc"}
    expected = theirs.MultipleNegativesRankingLoss(
        None,
        scale=20.0,
        directions=tuple(f"{words[item[0]]}_to_{words[item[-1]]}" for item in directions),
        partition_mode={"joint": "joint", "separate": "per_direction"}[partition],
    ).compute_loss_from_embeddings(columns[:width], None)
    ours = info_nce(contrast_of(columns[:width]), InfoNCE(directions=directions, partition=partition))
    check(ours, expected, leaves)


@pytest.mark.parametrize("mode", ["in_batch_negatives", "hard_negatives", "all_negatives"])
def test_hardness(leaves: list[Tensor], columns: list[Tensor], mode: str) -> None:
    expected = theirs.MultipleNegativesRankingLoss(None, scale=20.0, hardness_mode=mode, hardness_strength=5.0)
    kind = {"in_batch_negatives": "in-batch", "hard_negatives": "explicit", "all_negatives": "all"}[mode]
    ours = info_nce(contrast_of(columns), InfoNCE(hardness=Hardness(5.0, kind)))
    check(ours, expected.compute_loss_from_embeddings(columns, None), leaves)


def test_margins(leaves: list[Tensor], columns: list[Tensor]) -> None:
    teacher = torch.randn(6, 3, generator=torch.Generator().manual_seed(9))
    expected = theirs.MarginMSELoss(None).compute_loss_from_embeddings(columns, teacher)
    contrast = contrast_of(columns)
    scores = list_cosines(contrast.queries, contrast.positives, contrast.negatives)
    check(margin_mse(scores, teacher), expected, leaves)


def test_soft_labels(leaves: list[Tensor], columns: list[Tensor]) -> None:
    """Theirs is multiplied by the square of the student's temperature."""
    teacher = torch.randn(6, 3, generator=torch.Generator().manual_seed(9))
    loss = theirs.DistillKLDivLoss(None, student_temperature=0.5, teacher_temperature=2.0)
    contrast = contrast_of(columns)
    scores = list_cosines(contrast.queries, contrast.positives, contrast.negatives)
    ours = listwise_kl(scores, teacher, student_temperature=0.5, teacher_temperature=2.0)
    check(0.25 * ours, loss.compute_loss_from_embeddings(columns, teacher), leaves)


def test_embedding_regression(leaves: list[Tensor], columns: list[Tensor]) -> None:
    """Theirs is 1 - cos, or the mean over the values of a vector."""
    student, teacher = columns[0], columns[1].detach()
    cosine = theirs.EmbedDistillLoss(None, distance_metric="cosine")
    check(cosine_regression(student, teacher) / 2, cosine.compute_loss_from_embeddings([student], [teacher]), leaves)
    square = theirs.EmbedDistillLoss(None, distance_metric="mse")
    ours = cosine_regression(student, teacher) / student.shape[1]
    check(ours, square.compute_loss_from_embeddings([student], [teacher]), leaves)


def test_regularisers(leaves: list[Tensor], columns: list[Tensor]) -> None:
    both = theirs.GlobalOrthogonalRegularizationLoss(None).compute_loss_from_embeddings(columns[:1])
    check(global_orthogonality(columns[0]), sum(both.values()), leaves)
    moment = theirs.GlobalOrthogonalRegularizationLoss(None, mean_weight=None).compute_loss_from_embeddings(columns[:1])
    check(spread_out(columns[0]) - 1 / 12, moment["gor_second_moment"], leaves)  # their 1/d is a constant


@pytest.mark.parametrize(
    ("loss", "similarity"), [(theirs.CoSENTLoss, pair_cosines), (theirs.AnglELoss, angle_similarity)]
)
def test_graded_pairs(
    leaves: list[Tensor],
    columns: list[Tensor],
    loss: type[theirs.CoSENTLoss],
    similarity: Callable[[Tensor, Tensor], Tensor],
) -> None:
    labels = torch.tensor([0.1, 0.9, 0.5, 0.5, 0.2, 0.7])
    expected = loss(None, scale=20.0).compute_loss_from_embeddings(columns[:2], labels)
    check(cosent(similarity(columns[0], columns[1]), labels), expected, leaves)


# -- losses that embed by themselves ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SentenceTransformer]:
    """A model and a guide, with random weights."""
    folder = tmp_path_factory.mktemp("models")
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_forward, "choose_dtype", lambda device: torch.float32)
        for seed, name in enumerate(("model", "guide")):
            Encoder.load(tiny_encoder(folder / f"{name} made", seed=seed), device="cpu").save(folder / name)
            made[name] = SentenceTransformer(str(folder / name), device="cpu", local_files_only=True)
    return made


def features(model: SentenceTransformer, width: int) -> list[Mapping[str, Tensor]]:
    return [model.preprocess(TEXTS[column::3][:6]) for column in range(width)]


def embedded(model: SentenceTransformer, width: int) -> Contrast:
    columns = [model(dict(part))["sentence_embedding"] for part in features(model, width)]
    return contrast_of([torch.nn.functional.normalize(column, dim=-1) for column in columns])


@pytest.mark.parametrize(
    ("width", "positives", "margin"),
    [
        (2, True, GuideMargin()),
        (2, True, GuideMargin(0.1)),
        (2, True, GuideMargin(0.1, "relative")),
        (3, False, GuideMargin()),
        (3, False, GuideMargin(0.2, "relative")),
    ],
    ids=str,
)
def test_a_guide(models: dict[str, SentenceTransformer], width: int, positives: bool, margin: GuideMargin) -> None:
    """With negatives theirs holds positives against positives only, ours against all documents, so that is off."""
    model, guide = models["model"], models["guide"]
    loss = theirs.GISTEmbedLoss(
        model,
        guide,
        temperature=0.05,
        margin=margin.margin,
        margin_strategy=margin.kind,
        contrast_positives=positives,
    )
    options = InfoNCE(directions=("q-d", "q-q", "d-d") if positives else ("q-d", "q-q"), guide=margin)
    with torch.no_grad():
        expected = loss(features(model, width), None)
        ours = info_nce(embedded(model, width), options, guide=embedded(guide, width))
        unguided = info_nce(embedded(model, width), InfoNCE(directions=options.directions))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)
    assert ours < unguided - 1e-3  # the guide has left something out


def test_prefixes(models: dict[str, SentenceTransformer]) -> None:
    model = models["model"]
    inner = theirs.MultipleNegativesRankingLoss(model, scale=20.0)
    loss = theirs.MatryoshkaLoss(model, inner, matryoshka_dims=[24, 16, 8], matryoshka_weights=[1.0, 0.3, 0.2])
    contrast = embedded(model, 2)
    ours = matryoshka(
        lambda vectors: info_nce(Contrast(vectors["queries"], vectors["positives"])),
        Matryoshka((24, 16, 8), (1.0, 0.3, 0.2)),
    )({"queries": contrast.queries, "positives": contrast.positives})
    torch.testing.assert_close(ours, loss(features(model, 2), None), atol=1e-5, rtol=1e-4)

"""Cached gradients are those of the whole batch, with dropout on; and only one chunk's activations are alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from ragindex.errors import TrainingError
from ragindex.train.gradcache import RandomState, cached_backward, plain_backward
from ragindex.train.losses import (
    Contrast,
    Hardness,
    InfoNCE,
    Matryoshka,
    Mixing,
    TaskTemperatures,
    info_nce,
    matryoshka,
    spread_out,
)

Step = Callable[..., Tensor]


class Bag(nn.Module):
    """Token ids (rows, length) to unit vectors, with dropout twice."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 16)
        self.layers = nn.Sequential(nn.Dropout(0.3), nn.Linear(16, 16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 8))

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.normalize(self.layers(self.table(ids).mean(dim=1)), dim=-1)


class Decoder(nn.Module):
    """Two layers of a real decoder with dropout in its attention; the mean of its states, at unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = LlamaModel(
            LlamaConfig(
                vocab_size=40,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                attention_dropout=0.4,
            )
        )

    def forward(self, ids: Tensor) -> Tensor:
        states = self.decoder(input_ids=ids, use_cache=False).last_hidden_state
        return nn.functional.normalize(states.mean(dim=1), dim=-1)


MODELS = [Bag, Decoder]


def made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().train()


def chunks() -> dict[str, list[Tensor]]:
    """Nine queries and positives and two negatives each, in chunks of four texts or fewer, of different lengths."""
    generator = torch.Generator().manual_seed(1)

    def drawn(rows: Sequence[int]) -> list[Tensor]:
        return [torch.randint(40, (count, 3 + place), generator=generator) for place, count in enumerate(rows)]

    return {"queries": drawn([4, 4, 1]), "positives": drawn([2, 4, 3]), "negatives": drawn([4, 4, 4, 4, 2])}


def contrastive(vectors: Mapping[str, Tensor]) -> Tensor:
    negatives = vectors["negatives"].unflatten(0, (-1, 2))
    options = InfoNCE(
        temperature=0.2, directions=("q-d", "q-q", "d-d"), hardness=Hardness(2.0, "all"), mixing=Mixing(pairs=1)
    )
    return info_nce(Contrast(vectors["queries"], vectors["positives"], negatives), options)


def everything(vectors: Mapping[str, Tensor]) -> Tensor:
    return matryoshka(contrastive, Matryoshka((8, 4)))(vectors) + spread_out(vectors["positives"])


def gradients(
    step: Step, model: nn.Module, loss: Callable[[Mapping[str, Tensor]], Tensor], **more: Any
) -> list[Tensor]:
    """The loss and every parameter's gradient of one step from a fixed seed, and the next random number."""
    model.zero_grad(set_to_none=True)
    torch.manual_seed(2)
    total = step(model, chunks(), loss, **more)
    assert not total.requires_grad
    found = [parameter.grad for parameter in model.parameters()]
    return [total, torch.rand(1), *(item.clone() for item in found if item is not None)]


def deviation(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest relative error of a tensor, by norm."""
    pairs = zip(found, expected, strict=True)
    return max(((one - other).norm() / other.norm().clamp_min(1e-12)).item() for one, other in pairs)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("loss", [contrastive, everything])
def test_cached_gradients_are_those_of_the_whole_batch(
    kind: type[nn.Module], loss: Callable[[Mapping[str, Tensor]], Tensor]
) -> None:
    model = made(kind)
    expected = gradients(plain_backward, model, loss)
    assert len(expected) == 2 + len(list(model.parameters()))
    assert any(item.any() for item in expected[2:])
    torch.testing.assert_close(gradients(cached_backward, model, loss), expected)
    other = gradients(plain_backward, model.eval(), loss)
    assert not torch.allclose(other[0], expected[0], rtol=1e-2)  # dropout matters


@pytest.mark.parametrize("kind", MODELS)
def test_they_are_wrong_unless_dropout_is_repeated(kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(kind)
    expected = gradients(plain_backward, model, contrastive)
    monkeypatch.setattr(RandomState, "replayed", lambda self: nullcontext())
    wrong = gradients(cached_backward, model, contrastive)
    assert torch.equal(wrong[0], expected[0])
    assert deviation(wrong, expected) > 0.05


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast(kind: type[nn.Module], dtype: torch.dtype) -> None:
    """One autocast around both passes, as accelerate has it: what it caches in the first must not spoil the second."""
    model = made(kind)
    with torch.autocast("cpu", dtype):
        expected = gradients(plain_backward, model, contrastive)
        found = gradients(cached_backward, model, contrastive)
    assert len(found) == len(expected) == 2 + len(list(model.parameters()))
    assert deviation(found, expected) < 0.01  # sums over chunks are rounded elsewhere
    exact = gradients(plain_backward, model, contrastive)
    assert not torch.equal(found[0], exact[0])  # it was on


def test_what_backward_does_to_the_loss_reaches_every_parameter() -> None:
    """As accelerate divides by the number of accumulated batches; a loss may have parameters of its own."""
    model, temperatures = made(Bag), TaskTemperatures(["all"], initial=0.2)

    def loss(vectors: Mapping[str, Tensor]) -> Tensor:
        return info_nce(Contrast(vectors["queries"], vectors["positives"]), temperature=temperatures("all"))

    results = []
    for step in (plain_backward, cached_backward):
        temperatures.zero_grad()
        found = gradients(step, model, loss, backward=lambda total: (total / 4).backward())
        assert temperatures.theta.grad is not None
        results.append([*found, temperatures.theta.grad])
    torch.testing.assert_close(results[1], results[0])
    whole = gradients(cached_backward, model, loss)
    torch.testing.assert_close(results[1][2:-1], [item / 4 for item in whole[2:]])
    torch.testing.assert_close(results[1][0], whole[0])  # the loss that is returned is the loss


def test_gradients_add_up_over_steps() -> None:
    model = made(Bag)
    once = gradients(cached_backward, model, contrastive)
    torch.manual_seed(2)
    cached_backward(model, chunks(), contrastive)
    twice = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    torch.testing.assert_close(twice, [2 * item for item in once[2:]])


def test_roles_that_the_loss_does_not_read_cost_one_pass() -> None:
    model, seen = made(Bag), []

    def forward(ids: Tensor) -> Tensor:
        seen.append((len(ids), torch.is_grad_enabled()))
        return model(ids)

    def loss(vectors: Mapping[str, Tensor]) -> Tensor:
        return info_nce(Contrast(vectors["queries"], vectors["positives"]))

    cached_backward(forward, chunks(), loss)
    first = [4, 4, 1, 2, 4, 3, 4, 4, 4, 4, 2]
    assert seen == [(rows, False) for rows in first] + [(rows, True) for rows in first[:6]]


def test_what_is_frozen_has_no_gradient_and_no_trouble() -> None:
    model = made(Bag)
    expected = gradients(plain_backward, model, contrastive)
    model.table.requires_grad_(False)
    torch.testing.assert_close(gradients(cached_backward, model, contrastive)[2:], expected[3:])
    model.requires_grad_(False)
    assert len(gradients(cached_backward, model, contrastive)) == 2


def test_double_precision_is_kept() -> None:
    model = made(Bag).double()
    expected = gradients(plain_backward, model, contrastive)
    assert expected[0].dtype == torch.float64
    torch.testing.assert_close(gradients(cached_backward, model, contrastive), expected, rtol=1e-12, atol=1e-12)


def test_a_role_without_texts_is_named() -> None:
    for step in (plain_backward, cached_backward):
        with pytest.raises(TrainingError, match="'negatives'"):
            step(made(Bag), {**chunks(), "negatives": []}, contrastive)


# -- memory ----------------------------------------------------------------------------------------------------------


class _Saved:
    """What autograd keeps for a backward pass, wrapped so that its end can be seen."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@contextmanager
def most_alive(model: nn.Module) -> Iterator[tuple[Callable[[Tensor], Tensor], list[int]]]:
    """Counts the calls of `model` whose activations are alive at one time; the list grows whenever one saves any."""
    alive: dict[int, int] = {}
    counts: list[int] = []
    calls = 0

    def forget(call: int) -> None:
        alive[call] -= 1

    def forward(ids: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        call = calls

        def pack(tensor: Tensor) -> _Saved:
            saved = _Saved(tensor)
            alive[call] = alive.get(call, 0) + 1
            weakref.finalize(saved, forget, call)
            counts.append(sum(count > 0 for count in alive.values()))
            return saved

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
            return model(ids)

    yield forward, counts


@pytest.mark.parametrize("kind", MODELS)
def test_one_chunk_at_a_time_is_held_in_memory(kind: type[nn.Module]) -> None:
    model = made(kind)
    with most_alive(model) as (forward, counts):
        plain_backward(forward, chunks(), contrastive)
    assert max(counts) == 11
    with most_alive(model) as (forward, counts):
        cached_backward(forward, chunks(), contrastive)
    assert set(counts) == {1}


# -- random numbers --------------------------------------------------------------------------------------------------


def test_a_replayed_state_leaves_no_trace() -> None:
    torch.manual_seed(0)
    state = RandomState.now()
    first = torch.rand(3)
    after = RandomState.now()
    with state.replayed():
        assert torch.equal(torch.rand(3), first)
        torch.rand(5)
    with pytest.raises(ValueError, match="stop"), state.replayed():
        raise ValueError("stop")
    assert torch.equal(RandomState.now().cpu, after.cpu)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("enabled", [False, True])
def test_on_a_gpu(kind: type[nn.Module], enabled: bool) -> None:
    model = made(kind).cuda()

    def forward(ids: Tensor) -> Tensor:
        return model(ids.cuda())

    def found(step: Step) -> list[Tensor]:
        model.zero_grad(set_to_none=True)
        torch.manual_seed(2)
        with torch.autocast("cuda", torch.bfloat16, enabled=enabled):
            total = step(forward, chunks(), contrastive)
        return [total, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]

    expected = found(plain_backward)
    assert deviation(found(cached_backward), expected) < 0.01

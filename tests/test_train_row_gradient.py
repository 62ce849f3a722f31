"""The gradient of a table of token rows, added up in place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from language_kit import STEP, fresh_model, some_texts
from torch import nn
from torch.testing import assert_close

from ragindex.train import loop
from ragindex.train.clm import CausalOptions, TrainedDecoder, causal_training
from ragindex.train.row_gradient import RowGradient, by_rows
from ragindex.train.schedule import LoopSettings
from ragindex.train.session import Plan, run_objective

IDS = torch.tensor([[3, 1, 3], [0, 7, 1]])


def _tables() -> tuple[nn.Embedding, nn.Embedding]:
    torch.manual_seed(0)
    plain = nn.Embedding(9, 4, padding_idx=0)
    quick = nn.Embedding(9, 4, padding_idx=0)
    quick.load_state_dict(plain.state_dict())
    by_rows(nn.ModuleList([quick]))
    return plain, quick


def _loss(table: nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
    return (table(ids) ** 3).sum()


def test_the_gradient_is_the_one_of_torch() -> None:
    tables = _tables()
    for ids in (IDS, IDS[:1]):  # a second backward pass adds to the first
        losses = [_loss(table, ids) for table in tables]
        assert_close(losses[0], losses[1])
        for loss in losses:
            loss.backward()
    assert_close(tables[0].weight.grad, tables[1].weight.grad)
    assert not tables[1].weight.grad[0].any()  # padding learns nothing


def test_a_step_begins_at_zero_in_the_memory_of_the_one_before() -> None:
    plain, quick = _tables()
    _loss(quick, IDS).backward()
    place = quick.weight.grad.data_ptr()
    for table in (plain, quick):
        table.zero_grad()
        _loss(table, IDS[1:]).backward()
    assert_close(plain.weight.grad, quick.weight.grad)
    assert quick.weight.grad.data_ptr() == place


def test_what_else_adds_to_the_gradient_is_kept() -> None:
    """A head that is the same table gives its part as torch does, before or after."""
    plain, quick = _tables()
    for table in (plain, quick):
        for _ in range(2):
            table.zero_grad()
            (_loss(table, IDS) + (table(IDS) @ table.weight.T).square().sum()).backward()
    assert_close(plain.weight.grad, quick.weight.grad)


def test_a_frozen_table_gets_none() -> None:
    table = nn.Parameter(torch.ones(4, 2), requires_grad=False)
    assert not RowGradient(table).rows(IDS[0, 1:2]).requires_grad
    assert table.grad is None


def test_a_table_that_does_more_than_look_up_is_left_alone() -> None:
    table = _Doubled(9, 4)
    rows = table(IDS)
    by_rows(nn.ModuleList([table]))
    assert_close(table(IDS), rows)


class _Doubled(nn.Embedding):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        return 2 * super().forward(input)


def test_a_run_learns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = _trained(tmp_path / "quick")
    monkeypatch.setattr(loop, "by_rows", lambda model: None)  # torch's own way
    assert_close(quick, _trained(tmp_path / "plain"), rtol=1e-4, atol=1e-5)


def _trained(output: Path) -> torch.Tensor:
    """The token rows of a decoder, which are its head as well, after a few steps."""
    model = fresh_model(some_texts())
    objective = causal_training(model, some_texts(), CausalOptions(block=32, steps=STEP))
    run_objective(objective, TrainedDecoder(model), Plan("clm", output, LoopSettings(steps=8, rate=1e-2), {}))
    rows: torch.Tensor = model.decoder.get_input_embeddings().weight
    return rows.detach()

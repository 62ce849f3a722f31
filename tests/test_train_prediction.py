"""What a token predictor is asked: labels, losses, and the tokens that are hidden from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from language_kit import exact, plain_decoder, random_batch
from tiny import tiny_tokenizer
from transformers import AutoModelForCausalLM

from ragindex.errors import UsageError
from ragindex.train.language import IGNORED, LanguageModel, TokenBatch, shifted
from ragindex.train.mntp import Masking, mask_token


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    """A plain decoder whose head is its embedding table."""
    return plain_decoder(tmp_path / "decoder")


# --- labels and losses


def test_what_is_predicted_is_the_label_one_place_on() -> None:
    labels = torch.tensor([[5, IGNORED, 7, 8], [1, 2, IGNORED, 4]])
    assert shifted(labels).tolist() == [[IGNORED, 7, 8, IGNORED], [2, IGNORED, 4, IGNORED]]


def test_a_batch_is_padded_and_padding_is_no_label() -> None:
    batch = TokenBatch.of([np.array([4, 5, 6]), np.array([7])])
    assert batch.ids.tolist() == [[4, 5, 6], [7, 0, 0]]
    assert batch.labels.tolist() == [[4, 5, 6], [7, IGNORED, IGNORED]]
    assert batch.real is not None
    assert batch.real.tolist() == [[True, True, True], [True, False, False]]
    assert batch.predicted == 2  # nothing stands before the first of a row
    assert TokenBatch.of([np.array([4, 5]), np.array([6, 7])]).real is None


@pytest.mark.parametrize("tied", [True, False])
def test_the_causal_loss_is_the_one_of_transformers(tmp_path: Path, tied: bool) -> None:
    directory = plain_decoder(tmp_path / "decoder", tied=tied)
    batch = random_batch()
    mine = exact(LanguageModel.open(directory))
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).requires_grad_(False)
    output = theirs(input_ids=batch.ids, attention_mask=batch.real.long(), labels=batch.labels)
    loss = (mine.loss(batch) / batch.predicted).detach()
    torch.testing.assert_close(loss, output.loss, rtol=1e-5, atol=1e-5)
    scores = mine.scores(batch)
    assert scores.count == batch.predicted == 30
    assert scores.loss / scores.count == pytest.approx(float(output.loss), rel=1e-5)
    right = output.logits[:, :-1].argmax(-1) == batch.labels[:, 1:]
    assert scores.right == int((right & batch.real[:, 1:]).sum())


def test_a_masked_loss_is_what_the_state_before_each_hidden_token_gives(decoder: Path) -> None:
    """By hand: log-probabilities of the hidden tokens from the logits one place before them, both ways read."""
    model = exact(LanguageModel.open(decoder, attention="bidirectional"))
    ids = torch.tensor([[10, 11, 3, 13, 3, 15]])
    labels = torch.full_like(ids, IGNORED)
    labels[0, 2], labels[0, 4] = 12, 14
    with torch.no_grad():
        logits = model.decoder(input_ids=ids).logits.log_softmax(-1)
        expected = -(logits[0, 1, 12] + logits[0, 3, 14])
        unshifted = -(logits[0, 2, 12] + logits[0, 4, 14])
        loss = model.loss(TokenBatch(ids, labels))
        # What stands behind a hidden token is read as well.
        changed = ids.clone()
        changed[0, 5] = 40
        other = model.loss(TokenBatch(changed, labels))
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert abs(float(expected - unshifted)) > 0.1
    assert abs(float(loss - other)) > 1e-3


def test_a_causal_model_does_not_read_what_comes_after(decoder: Path) -> None:
    model = exact(LanguageModel.open(decoder))
    ids = torch.tensor([[10, 11, 12, 13, 14, 15]])
    labels = torch.full_like(ids, IGNORED)
    labels[0, 2] = 12
    changed = ids.clone()
    changed[0, 5] = 40
    with torch.no_grad():
        assert float(model.loss(TokenBatch(ids, labels))) == float(model.loss(TokenBatch(changed, labels)))


def test_logits_in_parts_give_the_same_loss_and_gradient(decoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gradient() -> list[torch.Tensor]:
        model = exact(LanguageModel.open(decoder)).train()
        model.loss(random_batch()).backward()
        return [item.grad for item in model.parameters() if item.grad is not None]

    whole = gradient()
    monkeypatch.setattr("ragindex.train.language._LOGITS", 7 * 250)
    for mine, theirs in zip(gradient(), whole, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_head_that_is_more_than_a_table_is_asked_through_the_model(tmp_path: Path) -> None:
    """Gemma 2 caps its logits; the head alone would give others."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Gemma2Config(
        vocab_size=60, num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.1, eos_token_id=1, **sizes
    )
    Gemma2ForCausalLM(config).save_pretrained(tmp_path / "gemma")
    (tmp_path / "gemma" / "tokenizer.json").write_text(tiny_tokenizer().to_str(), encoding="utf-8")
    model = exact(LanguageModel.open(tmp_path / "gemma"))
    batch = random_batch(60)
    output = model.decoder(input_ids=batch.ids, attention_mask=batch.real.long(), labels=batch.labels)
    torch.testing.assert_close(model.loss(batch) / batch.predicted, output.loss, rtol=1e-5, atol=1e-5)
    states = model.inner(input_ids=batch.ids).last_hidden_state
    alone = model.decoder.lm_head(states).abs().max()
    assert alone > 0.1 > output.logits.abs().max()


# --- masking


def _masking(**changes: Any) -> Masking:
    return Masking(**{"mask": 3, "ordinary": torch.arange(10, 200), **changes})


def _many() -> TokenBatch:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(10, 200, (200, 500), generator=generator)
    ids[:, 100] = 2  # special
    real = torch.ones_like(ids, dtype=torch.bool)
    real[:, 450:] = False
    return TokenBatch(ids, ids.masked_fill(~real, IGNORED), real)


@pytest.mark.parametrize("rate", [0.2, 0.8])
def test_tokens_are_hidden_at_the_rate_asked_for(rate: float) -> None:
    batch = _many()
    masked = _masking(rate=rate)(batch, generator=torch.Generator().manual_seed(1))
    hidden = masked.labels != IGNORED
    assert torch.equal(masked.labels[hidden], batch.ids[hidden])
    assert torch.equal(masked.ids[~hidden], batch.ids[~hidden])
    candidates = batch.ids[:, 1:450]
    share = hidden.sum() / (candidates != 2).sum()
    assert float(share) == pytest.approx(rate, abs=0.01)
    assert not hidden[:, 0].any()  # nothing stands before it
    assert not hidden[:, 100].any()
    assert not hidden[:, 450:].any()
    fate = masked.ids[hidden]
    kept = float((fate == batch.ids[hidden]).float().mean())
    masks = float((fate == 3).float().mean())
    assert masks == pytest.approx(0.8, abs=0.01)
    assert kept == pytest.approx(0.1 + 0.1 / 190, abs=0.01)
    others = fate[(fate != 3) & (fate != batch.ids[hidden])]
    assert len(others) / len(fate) == pytest.approx(0.1, abs=0.01)
    assert others.min() >= 10
    assert len(others.unique()) == 190


def test_all_hidden_tokens_may_be_masks() -> None:
    batch = _many()
    masked = _masking(scheme="all", rate=0.8)(batch, generator=torch.Generator().manual_seed(1))
    hidden = masked.labels != IGNORED
    assert (masked.ids[hidden] == 3).all()


def test_masks_are_drawn_anew_unless_a_generator_repeats_them() -> None:
    batch, masking = _many(), _masking()
    first, second = (masking(batch, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first.ids, second.ids)
    torch.manual_seed(0)
    assert not torch.equal(masking(batch).labels, masking(batch).labels)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(UsageError, match="mask rate"):
        _masking(rate=rate)


def test_the_mask_token_is_the_one_chosen(decoder: Path) -> None:
    model = LanguageModel.open(decoder, attention="bidirectional")
    words = model.tokenizer
    assert mask_token(model) == mask_token(model, "blank") == words.token_to_id("_")
    assert mask_token(model, "eos") == words.token_to_id("[SEP]")
    rows = model.rows
    table = model.decoder.get_input_embeddings().weight.detach().clone()
    added = mask_token(model, "mask")
    assert added == rows == model.tokenizer.token_to_id("<mask>")
    assert model.rows == rows + 1
    assert model.has_tied_head
    new = model.decoder.get_input_embeddings().weight.detach()
    torch.testing.assert_close(new[:rows], table)
    torch.testing.assert_close(new[rows], table.mean(0))
    assert mask_token(model) == added  # from now on it has one of its own
    assert added not in model.ordinary_tokens()
    ordinary = model.ordinary_tokens().tolist()
    assert set(range(rows)) - set(ordinary) == {words.token_to_id("[CLS]"), words.token_to_id("[SEP]")}


def test_a_tokenizer_without_an_underscore_needs_another_mask(tmp_path: Path) -> None:
    words = tiny_tokenizer()
    table = json.loads(words.to_str())
    table["model"]["vocab"]["[unused]"] = table["model"]["vocab"].pop("_")
    decoder = plain_decoder(tmp_path / "decoder")
    (decoder / "tokenizer.json").write_text(json.dumps(table), encoding="utf-8")
    model = LanguageModel.open(decoder, attention="bidirectional")
    with pytest.raises(UsageError, match="no token '_'; choose the mask token eos or mask"):
        mask_token(model)

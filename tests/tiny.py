"""A tiny but real encoder directory: a Llama decoder with random weights, a small tokenizer, a head.

Written with numpy alone, so a test that needs an encoder pays neither for torch nor for transformers. Token rows
outweigh what the layers add, hence texts that share words are near each other; the layers still change every vector.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from ragindex.encoder import EncoderConfig, Prompts
from ragindex.encoder.checkpoint import TOKENIZER_FILE, Attention, Pooling
from ragindex.encoder.head import Head
from ragindex.encoder.layout import write_layout

__all__ = ["HEAD_DIMENSIONS", "HIDDEN", "SENTENCES", "TokenizerKind", "tiny_encoder", "tiny_tokenizer"]

TokenizerKind = Literal["wordpiece", "bpe"]

HIDDEN = 32
HEAD_DIMENSIONS = 24
_INTERMEDIATE = 48
_HEADS = 4

SENTENCES = (
    "Rotate the signing key every ninety days and keep the previous key until all sessions have ended.",
    "The kettle boils water at one hundred degrees; higher in the mountains it boils earlier.",
    "Employees may carry over five days of leave into the next year if their manager agrees.",
    "def parse_config(path): read the file, check every field and raise a clear error.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "To restore a backup, stop the service, copy the snapshot and start the service again.",
    "The query is matched against the index; documents that share words with it rank higher.",
    "Travel expenses are refunded within two weeks when the receipt is attached.",
    "A vaccine trains the immune system to recognise a virus before it meets one.",
    "Retrieve relevant passages that answer the question; the title says what a text is about.",
)


def tiny_encoder(
    directory: Path,
    *,
    attention: Attention = "bidirectional",
    pooling: Pooling = "mean",
    tokenizer: TokenizerKind = "wordpiece",
    key_heads: int = 2,
    layers: int = 2,
    mixing: float = 0.25,
    head: bool = True,
    specials: bool = True,
    max_tokens: int = 512,
    prompts: Prompts | None = None,
    seed: int = 0,
) -> Path:
    """Write an encoder into `directory` (created) and return it; the same options give the same bytes.

    layers: 0 leaves token rows and the last norm only. mixing: size of the output projections of attention and MLP; 0
    makes the model static, so no token reads another.
    key_heads: 4 is plain attention, 2 or 1 grouped. head: token weights and a linear map to HEAD_DIMENSIONS; without
    it vectors have HIDDEN values. specials: the tokenizer adds [CLS] and [SEP].
    """
    directory.mkdir(parents=True, exist_ok=True)
    words = tiny_tokenizer(tokenizer, specials=specials)
    words.save(str(directory / TOKENIZER_FILE))
    vocabulary = words.get_vocab_size()
    generator = np.random.default_rng(seed)
    tensors = _decoder_tensors(generator, vocabulary, layers=layers, key_heads=key_heads, mixing=mixing)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    tensors_after = _head(generator, words) if head else Head()
    config = _llama_config(vocabulary, layers=layers, key_heads=key_heads, positions=max_tokens)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_layout(
        directory,
        EncoderConfig(
            dimensions=HEAD_DIMENSIONS if head else HIDDEN,
            max_tokens=max_tokens,
            attention=attention,
            pooling=pooling,
            prompts=prompts or Prompts(),
            matryoshka=(8, 16),
            card={"method": "random weights, for tests"},
        ),
        tensors_after,
    )
    return directory


def tiny_tokenizer(kind: TokenizerKind = "wordpiece", *, specials: bool = True) -> Tokenizer:
    """A tokenizer of a few hundred tokens made from SENTENCES.

    "wordpiece" lowers case and knows every ASCII character, "bpe" keeps case and knows every byte.
    """
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer: Tokenizer
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(_word_pieces(names), unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=names,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(SENTENCES, trainer)
    if specials:
        pairs = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=pairs)
    return tokenizer


def _word_pieces(specials: Sequence[str]) -> dict[str, int]:
    """Whole words, stems and single characters; listed here because the library's trainer breaks ties at random."""
    words = {word for sentence in SENTENCES for word in re.findall(r"\w+", sentence.lower())}
    printable = {chr(code).lower() for code in range(33, 127)}
    endings = {"##s", "##ed", "##ing", "##er", "##tion"}
    pieces = sorted(printable | words | endings | {f"##{letter}" for letter in printable})
    return {piece: number for number, piece in enumerate([*specials, *pieces])}


def _decoder_tensors(
    generator: np.random.Generator, vocabulary: int, *, layers: int, key_heads: int, mixing: float
) -> Mapping[str, np.ndarray]:
    key_size = HIDDEN // _HEADS * key_heads

    def matrix(rows: int, columns: int, size: float = 1.0) -> np.ndarray:
        return (size * generator.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)

    tensors = {
        "embed_tokens.weight": generator.standard_normal((vocabulary, HIDDEN)).astype(np.float32),
        "norm.weight": generator.uniform(0.8, 1.2, HIDDEN).astype(np.float32),
    }
    for number in range(layers):
        layer = {
            "input_layernorm": generator.uniform(0.8, 1.2, HIDDEN).astype(np.float32),
            "self_attn.q_proj": matrix(HIDDEN, HIDDEN, 1.5),
            "self_attn.k_proj": matrix(key_size, HIDDEN, 1.5),
            "self_attn.v_proj": matrix(key_size, HIDDEN),
            "self_attn.o_proj": matrix(HIDDEN, HIDDEN, mixing),
            "post_attention_layernorm": generator.uniform(0.8, 1.2, HIDDEN).astype(np.float32),
            "mlp.gate_proj": matrix(_INTERMEDIATE, HIDDEN),
            "mlp.up_proj": matrix(_INTERMEDIATE, HIDDEN),
            "mlp.down_proj": matrix(HIDDEN, _INTERMEDIATE, mixing),
        }
        tensors.update({f"layers.{number}.{name}.weight": tensor for name, tensor in layer.items()})
    return tensors


def _head(generator: np.random.Generator, words: Tokenizer) -> Head:
    ids = [token for sentence in SENTENCES for token in words.encode(sentence).ids]
    counts = np.bincount(ids, minlength=words.get_vocab_size())
    return Head(
        # Frequent words count less, so that a rare word that two texts share makes them neighbours.
        token_weights=(1.0 / np.maximum(counts, 1)).astype(np.float32),
        weight=(generator.standard_normal((HEAD_DIMENSIONS, HIDDEN)) / np.sqrt(HIDDEN)).astype(np.float32),
        bias=(0.05 * generator.standard_normal(HEAD_DIMENSIONS)).astype(np.float32),
    )


def _llama_config(vocabulary: int, *, layers: int, key_heads: int, positions: int) -> Mapping[str, object]:
    return {
        "architectures": ["LlamaModel"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": _INTERMEDIATE,
        "num_hidden_layers": layers,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": key_heads,
        "head_dim": HIDDEN // _HEADS,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": positions,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": None,
    }

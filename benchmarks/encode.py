"""Tokens per second of an encoder, against sentence-transformers with the same weights and the bare forward pass.

    python benchmarks/encode.py [--texts 1500] [--layers 4] [--hidden 256] [--rounds 3] [--device cpu]

The decoder has random weights: they decide no speed. Texts are of mixed length (log-normal, median 60 tokens) and in
random order. The bare forward pass gets token ids that are packed perfectly: all of one length, no padding, no
pooling; it is what no encoder can pass. All in one process, a round each in turn; counted are real tokens, not padding.
Prints ratios; asserts nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from _common import Times, interleaved, table
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaModel

from ragindex.encoder import Encoder, EncoderConfig
from ragindex.encoder.checkpoint import TOKENIZER_FILE
from ragindex.encoder.head import Head
from ragindex.encoder.layout import write_layout
from ragindex.encoder.resolve import bundled_directory
from ragindex.encoder.torch_forward import TorchForward, choose_device, choose_dtype

_WORDS = "the key is kept in a safe and every ninety days it has to be replaced by another one for all users"
_LONGEST = 512
_BARE_LENGTH = 64
_BATCH_TOKENS = {"cpu": 4_096, "cuda": 65_536}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1500)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", help="the best there is by default")
    options = parser.parse_args()
    device = choose_device(options.device)
    with tempfile.TemporaryDirectory(prefix="ragindex-encode-") as scratch:
        directory = write_model(Path(scratch), layers=options.layers, hidden=options.hidden)
        measure(directory, mixed_texts(options.texts), device, rounds=options.rounds)


def write_model(directory: Path, *, layers: int, hidden: int) -> Path:
    """An encoder with random weights and the bundled tokenizer."""
    tokenizer = Tokenizer.from_file(str(bundled_directory() / TOKENIZER_FILE))
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        max_position_embeddings=_LONGEST,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    LlamaModel(config).save_pretrained(directory)
    tokenizer.save(str(directory / TOKENIZER_FILE))
    write_layout(directory, EncoderConfig(dimensions=hidden, max_tokens=_LONGEST), Head())
    return directory


def mixed_texts(count: int) -> list[str]:
    """Texts of common words, log-normal in length."""
    generator = np.random.default_rng(0)
    words = [*_WORDS.split()]
    lengths = np.clip(generator.lognormal(np.log(60), 0.9, count), 3, _LONGEST - 12).astype(int)
    return [" ".join(generator.choice(words, length)) for length in lengths]


def measure(directory: Path, texts: list[str], device: torch.device, *, rounds: int) -> None:
    encoder = Encoder.load(directory, device=device.type)
    tokenized = encoder.tokenizer.tokenize([encoder.config.prompts.for_document(text) for text in texts])
    tokens = sum(len(item.ids) for item in tokenized)
    exact = TorchForward(encoder._checkpoint, device=device.type, dtype=torch.float32)
    theirs = SentenceTransformer(str(directory), device=device.type, local_files_only=True)
    other = theirs.encode_document(texts[:50])
    difference = np.abs(exact(tokenized[:50]) - other).max()
    bare = {name: BareForward(directory, device, dtype, tokens) for name, dtype in dtypes(device).items()}
    tasks = {
        "sentence-transformers, float32": lambda: theirs.encode_document(texts, batch_size=32),
        "ragindex, float32": lambda: exact(
            encoder.tokenizer.tokenize([encoder.config.prompts.for_document(text) for text in texts])
        ),
        f"ragindex, {short(choose_dtype(device))} (default)": lambda: encoder.encode_documents(texts),
        **{f"bare forward pass, {name}": forward.run for name, forward in bare.items()},
    }
    times = interleaved(tasks, rounds=rounds)
    base = times["sentence-transformers, float32"]
    print(f"{len(texts):,} texts, {tokens:,} tokens, {device}; largest difference of a value {difference:.1e}\n")
    rows = [(name, rate(tokens, item), f"{base.median / item.median:.2f}") for name, item in times.items()]
    print(table(("", "tokens/s", "× sentence-transformers"), rows))


def rate(tokens: int, times: Times) -> str:
    return f"{tokens / times.median:,.0f}"


def dtypes(device: torch.device) -> dict[str, torch.dtype]:
    return {short(dtype): dtype for dtype in (torch.float32, choose_dtype(device))}


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class BareForward:
    """As many tokens as the texts have, in full batches of one length."""

    def __init__(self, directory: Path, device: torch.device, dtype: torch.dtype, tokens: int) -> None:
        self._model: torch.nn.Module = LlamaModel.from_pretrained(directory, dtype=dtype).eval()
        self._model.to(device)
        rows = max(1, _BATCH_TOKENS.get(device.type, 4_096) // _BARE_LENGTH)
        lines = max(1, tokens // _BARE_LENGTH)
        sizes = [rows] * (lines // rows) + ([lines % rows] if lines % rows else [])
        generator = torch.Generator().manual_seed(0)
        self._batches = [torch.randint(5, 30_000, (size, _BARE_LENGTH), generator=generator) for size in sizes]
        self._device = device

    @torch.inference_mode()
    def run(self) -> None:
        """All batches once; reading a number from each waits for the device."""
        for ids in self._batches:
            self._model(input_ids=ids.to(self._device), use_cache=False).last_hidden_state.sum().item()


if __name__ == "__main__":
    main()

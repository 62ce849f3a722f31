"""What late chunking costs: chunks embedded in the context of their document against the same chunks by themselves.

    python benchmarks/late_chunking.py [--documents 24] [--layers 4] [--hidden 256] [--rounds 3] [--device cpu]

The decoder has random weights: they decide no cost, and say nothing of quality. Documents are 1,500 common words long,
chunks 150. A window is what is read at once; a document that is longer is read in several, which overlap by a quarter.
The bundled encoder is static, so there both ways give the same vectors; the difference is printed too. All in one
process, a round each in turn. Prints ratios; asserts nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _common import interleaved, table
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaModel

from ragindex.encoder import Encoder, EncoderConfig
from ragindex.encoder.checkpoint import TOKENIZER_FILE
from ragindex.encoder.head import Head
from ragindex.encoder.layout import write_layout
from ragindex.encoder.resolve import bundled_directory

_WORDS = "the key is kept in a safe and every ninety days it has to be replaced by another one for all users"
_DOCUMENT, _CHUNK = 1_500, 150  # words
_WINDOWS = (256, 512, 2_048)  # tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=24)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", help="the best there is by default")
    options = parser.parse_args()
    documents = [document(number) for number in range(options.documents)]
    with tempfile.TemporaryDirectory(prefix="ragindex-late-") as scratch:
        write_model(Path(scratch), layers=options.layers, hidden=options.hidden)
        encoders = {f"window of {size}": load(scratch, size, options.device) for size in _WINDOWS}
        measure(encoders, documents, rounds=options.rounds)
    static(documents, rounds=options.rounds)


def document(seed: int) -> tuple[str, list[tuple[int, int]]]:
    """A text and where its chunks lie in it."""
    generator = np.random.default_rng(seed)
    parts = [" ".join(generator.choice(_WORDS.split(), _CHUNK)) for _ in range(_DOCUMENT // _CHUNK)]
    starts = np.cumsum([0, *(len(part) + 1 for part in parts[:-1])]).tolist()
    return "\n".join(parts), [(start, start + len(part)) for start, part in zip(starts, parts, strict=True)]


def write_model(directory: Path, *, layers: int, hidden: int) -> None:
    """An encoder with random weights and the bundled tokenizer."""
    tokenizer = Tokenizer.from_file(str(bundled_directory() / TOKENIZER_FILE))
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        max_position_embeddings=max(_WINDOWS),
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    LlamaModel(config).save_pretrained(directory)
    tokenizer.save(str(directory / TOKENIZER_FILE))
    write_layout(directory, EncoderConfig(dimensions=hidden, max_tokens=max(_WINDOWS)), Head())


def load(directory: str, window: int, device: str | None) -> Encoder:
    return Encoder.load(directory, max_tokens=window, device=device)


def measure(encoders: dict[str, Encoder], documents: list[tuple[str, list[tuple[int, int]]]], *, rounds: int) -> None:
    first = next(iter(encoders.values()))
    chunks = [text[start:end] for text, spans in documents for start, end in spans]
    tokens = sum(first.tokenizer.count(chunk) + first.tokenizer.specials for chunk in chunks)
    tasks: dict[str, Callable[[], object]] = {"by themselves": lambda: first.encode_documents(chunks)}
    read = {"by themselves": tokens}
    for name, encoder in encoders.items():
        tasks[name] = _late(encoder, documents)
        read[name] = sum(_tokens(encoder, text, spans) for text, spans in documents)
    times = interleaved(tasks, rounds=rounds)
    base = times["by themselves"].median
    print(f"{len(chunks):,} chunks of {len(documents)} documents, {tokens:,} tokens\n")
    rows = [
        (name, f"{read[name] / tokens:.2f}", f"{tokens / item.median:,.0f}", f"{item.median / base:.2f}")
        for name, item in times.items()
    ]
    print(table(("chunks", "tokens read", "chunk tokens/s", "× time"), rows))


def static(documents: list[tuple[str, list[tuple[int, int]]]], *, rounds: int) -> None:
    encoder = Encoder.load("bundled")
    chunks = [text[start:end] for text, spans in documents for start, end in spans]
    late = np.concatenate([encoder.encode_spans(text, spans) for text, spans in documents])
    difference = np.abs(late - encoder.encode_documents(chunks)).max()
    tasks = {"by themselves": lambda: encoder.encode_documents(chunks), "late": _late(encoder, documents)}
    times = interleaved(tasks, rounds=rounds)
    print(f"\nThe bundled encoder: largest difference of a value {difference:.1e}\n")
    base = times["by themselves"].median
    print(table(("chunks", "× time"), [(name, f"{item.median / base:.2f}") for name, item in times.items()]))


def _late(encoder: Encoder, documents: list[tuple[str, list[tuple[int, int]]]]) -> Callable[[], object]:
    return lambda: encoder.spans.encode([encoder.spans.plan(text, spans) for text, spans in documents])


def _tokens(encoder: Encoder, text: str, spans: list[tuple[int, int]]) -> int:
    windows = encoder.spans.plan(text, spans).windows
    return sum(encoder.tokenizer.count(text[start:end]) + encoder.tokenizer.specials for start, end in windows)


if __name__ == "__main__":
    main()

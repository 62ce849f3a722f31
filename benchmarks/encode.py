"""Tokens per second of an encoder, against sentence-transformers with the same weights and the bare forward pass.

    python benchmarks/encode.py [--layers 4] [--hidden 256] [--texts 1500] [--rounds 3] [--device cpu] [--clock cpu]

The decoder has random weights: they decide no speed. Texts are of mixed length (log-normal, median 60 tokens) and in
random order. The bare forward pass gets ids that are packed perfectly: batches of as many tokens, all of one length, no
padding, no pooling, no tokenising. That length is 64, and then the mean length that a token of the texts finds itself
in, since attention costs more the longer a text is. All runs in one process, each task once a round; counted are real
tokens, not padding. Ratios are medians over the rounds, each taken within a round.

Utilisation is the arithmetic of the layers and of attention a second, over that of one large matrix product, measured
here. With `--clock cpu` the time is that of the processor, for machines that do other things as well; torch should then
have one thread (OMP_NUM_THREADS=1), as waiting threads are counted. Prints tables; asserts nothing.

For a GPU: --layers 16 --hidden 2048 --texts 20000 (0.9 billion parameters), also with --execution compiled.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from _common import Times, interleaved, table
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaModel

from ragindex.encoder import Encoder, EncoderConfig, find_checkpoint
from ragindex.encoder.backbone import load_backbone
from ragindex.encoder.checkpoint import TOKENIZER_FILE
from ragindex.encoder.devices import choose_device, choose_dtype, padded_tokens
from ragindex.encoder.head import Head
from ragindex.encoder.layout import write_layout
from ragindex.encoder.resolve import bundled_directory
from ragindex.encoder.torch_forward import TorchForward

_SENTENCE = "the key is kept in a safe and every ninety days it has to be replaced by another one for all users"
_LONGEST = 512
_THEIRS = "sentence-transformers, float32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--texts", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", help="the best there is by default")
    parser.add_argument("--execution", choices=("free", "compiled", "stable"), default="free")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    options = parser.parse_args()
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    with tempfile.TemporaryDirectory(prefix="ragindex-encode-") as scratch:
        directory = write_model(Path(scratch), layers=options.layers, hidden=options.hidden)
        subject = Subject.of(directory, mixed_texts(options.texts), choose_device(options.device))
        tasks = subject.tasks(options.execution)
        report(subject, interleaved(tasks, rounds=options.rounds, clock=clock), clock)


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
    generator, words = np.random.default_rng(0), _SENTENCE.split()
    lengths = np.clip(generator.lognormal(np.log(60), 0.9, count), 3, _LONGEST - 12).astype(int)
    return [" ".join(generator.choice(words, length)) for length in lengths]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: an encoder, texts and their lengths in tokens, a device."""

    directory: Path
    texts: Sequence[str]
    lengths: np.ndarray
    device: torch.device

    @classmethod
    def of(cls, directory: Path, texts: Sequence[str], device: torch.device) -> Subject:
        """Measures the lengths."""
        encoder = Encoder.load(directory, device=device.type)
        tokenized = encoder.tokenizer.tokenize([encoder.config.prompts.for_document(text) for text in texts])
        return cls(directory, texts, np.array([len(item.ids) for item in tokenized]), device)

    @property
    def met(self) -> int:
        """The mean length of a text as its tokens see it: what attention costs a token."""
        return int((self.lengths**2).sum() / self.lengths.sum())

    def tasks(self, execution: str) -> dict[str, Callable[[], object]]:
        """By name; the same number of tokens each."""
        dtype = choose_dtype(self.device)
        tasks: dict[str, Callable[[], object]] = {_THEIRS: self.theirs(torch.float32)}
        if dtype != torch.float32:
            tasks[f"sentence-transformers, {short(dtype)}"] = self.theirs(dtype)
            tasks["ragindex, float32"] = self.ours(torch.float32, execution)
        tasks[f"ragindex, {short(dtype)} (default)"] = self.ours(dtype, execution)
        for length in (64, self.met):
            tasks[f"bare forward pass, {short(dtype)}, texts of {length}"] = self.bare(dtype, length)
        return tasks

    def theirs(self, dtype: torch.dtype) -> Callable[[], object]:
        """As a user of sentence-transformers would."""
        model = SentenceTransformer(
            str(self.directory), device=self.device.type, local_files_only=True, model_kwargs={"dtype": dtype}
        )
        return lambda: model.encode_document(list(self.texts))

    def ours(self, dtype: torch.dtype, execution: str) -> Callable[[], object]:
        """As a user of ragindex would, with another number type perhaps."""
        encoder = Encoder.load(self.directory, device=self.device.type)
        encoder._forwards["torch"] = TorchForward(
            find_checkpoint(str(self.directory)),
            device=self.device.type,
            dtype=dtype,
            execution=execution,  # type: ignore[arg-type]
        )
        return lambda: encoder.encode_documents(self.texts)

    def bare(self, dtype: torch.dtype, length: int) -> Callable[[], object]:
        """All tokens once, in full batches of one length; a number is read from each, which waits for the device."""
        model = load_backbone(self.directory, attention="bidirectional", device=self.device, dtype=dtype)
        rows = max(1, padded_tokens(self.device) // length)
        lines = max(1, round(int(self.lengths.sum()) / length))
        sizes = [rows] * (lines // rows) + ([lines % rows] if lines % rows else [])
        generator = torch.Generator().manual_seed(0)
        batches = [torch.randint(5, 30_000, (size, length), generator=generator) for size in sizes]

        @torch.inference_mode()
        def run() -> None:
            for ids in batches:
                model(input_ids=ids.to(self.device), use_cache=False).last_hidden_state.sum().item()

        return run

    def operations(self) -> float:
        """Floating-point operations of the layers for all texts: two a weight and token, four a pair of tokens and
        value.
        """
        config = LlamaConfig.from_pretrained(self.directory)
        weights = config.num_hidden_layers * (4 + 3 * 3) * config.hidden_size**2
        pairs = config.num_hidden_layers * config.hidden_size * float((self.lengths**2).sum())
        return float(2 * weights * self.lengths.sum() + 4 * pairs)


def report(subject: Subject, times: Mapping[str, Times], clock: Callable[[], float]) -> None:
    """Print what was measured."""
    tokens, dtype = int(subject.lengths.sum()), choose_dtype(subject.device)
    limit = matrix_rate(subject.device, dtype, clock)
    threads = f" with {torch.get_num_threads()} threads" if subject.device.type == "cpu" else ""
    print(f"{len(subject.texts):,} texts, {tokens:,} tokens, {subject.device}{threads}")
    print(f"one large matrix product in {short(dtype)}: {limit / 1e9:,.0f} billion operations a second\n")
    bare = list(times)[-2:]
    rows = [
        (
            name,
            f"{tokens / item.median:,.0f}",
            f"{ratio(times[_THEIRS], item):.2f}",
            *(f"{ratio(times[other], item):.2f}" for other in bare),
            f"{subject.operations() / item.median / limit:.0%}",
        )
        for name, item in times.items()
    ]
    heads = [f"× bare, {name.rpartition(' ')[2]}" for name in bare]
    print(table(("", "tokens/s", "× sentence-transformers", *heads, "utilisation"), rows))


def ratio(base: Times, other: Times) -> float:
    """How many times as fast the other one is: the median over the rounds."""
    return statistics.median(one / two for one, two in zip(base.seconds, other.seconds, strict=True))


@torch.inference_mode()
def matrix_rate(device: torch.device, dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """Operations a second of a large matrix product, the best of several."""
    size = 8_192 if device.type == "cuda" else 2_048
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(8):
        began = clock()
        (one @ other)[0, 0].item()
        seconds.append(clock() - began)
    return float(2 * size**3 / min(seconds))


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    main()

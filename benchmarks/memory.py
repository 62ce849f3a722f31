"""Memory and time of encoding many short texts: what it takes beyond the texts and the vectors themselves.

    python benchmarks/memory.py [--texts 1000000] [--encoder bundled] [--output float32]

The texts are made first, then the encoder is warmed up on a few, then all of them are encoded in one call. What grew is
the peak of the resident memory during that call, less the array that it returns; it should be the same for ten times
as many texts. Prints a table for a tenth of the texts and for all of them; asserts nothing.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path
from types import TracebackType

import numpy as np
from _common import table

from ragindex.encoder import Encoder

_SENTENCE = "the key is kept in a safe and every ninety days it has to be replaced by another one for all users"
_WARM_UP = 2_000
_MEGABYTE = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--encoder", default="bundled")
    parser.add_argument("--output", default="float32", help="as encode_documents takes it")
    options = parser.parse_args()
    encoder = Encoder.load(options.encoder, device="cpu")
    rows = [row(encoder, count, options.output) for count in (options.texts // 10, options.texts)]
    print(table(("texts", "their memory, MB", "vectors, MB", "peak beyond both, MB", "seconds", "texts/s"), rows))


def row(encoder: Encoder, count: int, output: str) -> list[str]:
    before = resident()
    texts = short_texts(count)
    encoder.encode_documents(texts[:_WARM_UP], output=output)  # type: ignore[arg-type]
    held = resident()
    began = time.perf_counter()
    with Peak() as peak:
        vectors = encoder.encode_documents(texts, output=output)  # type: ignore[arg-type]
    seconds = time.perf_counter() - began
    beyond = peak.bytes - held - vectors.nbytes
    sizes = (held - before, vectors.nbytes, beyond)
    return [f"{count:,}", *(f"{size / _MEGABYTE:,.0f}" for size in sizes), f"{seconds:.1f}", f"{count / seconds:,.0f}"]


def short_texts(count: int) -> list[str]:
    """Different texts of about 40 characters."""
    generator, words = np.random.default_rng(0), _SENTENCE.split()
    places = generator.integers(0, len(words), (count, 8))
    return [f"{number} " + " ".join([words[place] for place in row]) for number, row in enumerate(places)]


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Peak:
    """The most memory that was resident at any time inside a `with` block."""

    def __init__(self) -> None:
        self.bytes = resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.bytes = max(self.bytes, resident())


if __name__ == "__main__":
    main()

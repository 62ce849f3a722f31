"""A training step of an encoder on a CPU: the gradient of its token rows as torch makes it, and added up in place.

    python benchmarks/training_step.py [--encoder bundled] [--texts 64] [--passes 3] [--rounds 15] [--clock processor]

A step embeds --texts passages of the sample handbook in --passes backward passes, as cached gradients do, and ends
with the optimiser's update. Prints medians, and their ratio to torch's own way.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from _common import CLOCKS, interleaved, table, versus

from ragindex.encoder.tokenizer import Tokenized
from ragindex.resources import resource
from ragindex.train.model import TrainableEncoder
from ragindex.train.row_gradient import by_rows

_LONGEST = 128  # tokens of a passage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="bundled")
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    plain, quick = (TrainableEncoder.open(options.encoder, device="cpu").train() for _ in range(2))
    by_rows(quick)
    tokens = passages(plain, options.texts)
    tasks = {
        "torch's own gradient": step_of(plain, tokens, options.passes),
        "added up in place": step_of(quick, tokens, options.passes),
    }
    times = interleaved(tasks, rounds=options.rounds, warm_up=2, clock=CLOCKS[options.clock])
    print(f"{sum(len(item.ids) for item in tokens):,} tokens a step, {options.passes} backward passes")
    print(table(["gradient of the token rows", "median, ms", "95 %", "ratio"], versus(times, "torch's own gradient")))


def passages(model: TrainableEncoder, count: int) -> list[Tokenized]:
    """So many pieces of the sample handbook's text."""
    files = sorted((resource("sample_corpora") / "handbook" / "corpus").rglob("*.md"))
    texts = [part for file in files for part in file.read_text(encoding="utf-8").split("\n\n") if len(part) > 100]
    return model.documents(texts[:count], max_tokens=_LONGEST)


def step_of(model: TrainableEncoder, tokens: list[Tokenized], passes: int) -> Callable[[], None]:
    """A step that brings each text nearer to the one after it."""
    trained = [item for item in model.parameters() if item.requires_grad]
    return partial(_step, model, tokens, passes, torch.optim.AdamW(trained, lr=1e-5, fused=True))


def _step(model: TrainableEncoder, tokens: list[Tokenized], passes: int, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad(set_to_none=True)
    for start in range(passes):
        vectors = model(tokens[start::passes])
        (vectors * vectors.roll(1, 0)).sum().neg().backward()
    optimiser.step()


if __name__ == "__main__":
    main()

"""Embedding regression: trains a whole encoder against a teacher's vectors by cosine (LEAF, arXiv 2509.12539).

    python -m ragindex.train.distill --encoder DIR --shards DIR --output DIR --minutes N

No labels and no negatives: loss = 1 - cos(student(text), teacher(text)), averaged over texts. Starts from any encoder
directory with a head of the teacher's size, usually the static floor. The rate follows a warm-up and then a cosine
over the time given, so the run ends annealed on a fast machine and on a slow one. The output directory is written
whenever the held-out cosine is measured.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from torch import nn
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from ragindex.encoder.backbone import load_backbone
from ragindex.encoder.checkpoint import TOKENIZER_FILE, Checkpoint
from ragindex.encoder.head import Head
from ragindex.encoder.layout import write_layout
from ragindex.encoder.resolve import find_checkpoint
from ragindex.encoder.torch_forward import pool_states, token_budget_batches
from ragindex.errors import TrainingError
from ragindex.train.teacher import read_shards

__all__ = ["Student", "main"]

_FEWEST = 10  # crops, for a share of them to be held out
_POOL = 4096  # examples that are sorted by length together: little padding, and batches of mixed content


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of a crop and the teacher's unit vector of it."""

    ids: list[int]
    target: np.ndarray


class Student(nn.Module):
    """Decoder, token weights and head of an encoder directory, all trainable."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        head = Head.read(checkpoint.directory)
        if head.weight is None or head.bias is None or head.token_weights is None:
            raise TrainingError(f"{checkpoint.directory} has no head to train; start from a static floor.")
        self.backbone: PreTrainedModel = load_backbone(
            checkpoint.directory,
            attention=checkpoint.config.attention,
            device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            dtype=torch.float32,
        )
        self.pooling = checkpoint.config.pooling
        self.log_weights = nn.Parameter(torch.from_numpy(head.token_weights).clamp_min(1e-6).log())
        self.head = nn.Linear(head.weight.shape[1], len(head.weight))
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(head.weight))
            self.head.bias.copy_(torch.from_numpy(head.bias))
        self.to(self.backbone.device)

    def forward(self, ids: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Unit vectors (n, d) of padded token ids (n, length); `real` is 1 where a token is no padding."""
        states = self.backbone(input_ids=ids, attention_mask=None if bool(real.all()) else real).last_hidden_state
        vectors = pool_states(states.float(), real.float(), self.log_weights[ids].exp(), self.pooling)
        return normalize(self.head(vectors), dim=-1)

    def groups(self, rate: float) -> list[dict[str, object]]:
        """Parameters by learning rate: the tables of the floor are trained already and move more slowly."""
        tables = {id(self.log_weights), id(self.backbone.get_input_embeddings().weight)}
        slow = [item for item in self.parameters() if id(item) in tables]
        matrices = [item for item in self.parameters() if id(item) not in tables and item.ndim > 1]
        vectors = [item for item in self.parameters() if id(item) not in tables and item.ndim <= 1]
        return [
            {"params": slow, "lr": rate, "weight_decay": 0.0},
            {"params": matrices, "lr": rate, "weight_decay": 0.01},
            {"params": vectors, "lr": rate, "weight_decay": 0.0},
        ]


def read_examples(directory: Path, tokenizer: Tokenizer, *, max_tokens: int) -> list[Example]:
    """The crops of all finished shards. Raises TrainingError when there are none."""
    examples: list[Example] = []
    for crops, vectors in read_shards(directory):
        encodings = tokenizer.encode_batch_fast(crops)
        examples.extend(
            Example(encoding.ids[:max_tokens], vector)
            for encoding, vector in zip(encodings, vectors, strict=True)
            if encoding.ids
        )
    if not examples:
        raise TrainingError(f"{directory} holds no finished shards; make them with ragindex.train.teacher.")
    return examples


def batches(examples: Sequence[Example], *, tokens: int, seed: int) -> Iterator[list[Example]]:
    """Endless batches of at most `tokens` padded tokens; within a pool they are similar in length and in random
    order.
    """
    generator = random.Random(seed)  # noqa: S311 - shuffling, not secrecy
    while True:
        order = list(range(len(examples)))
        generator.shuffle(order)
        for start in range(0, len(order), _POOL):
            pool = [examples[index] for index in order[start : start + _POOL]]
            groups = token_budget_batches([len(item.ids) for item in pool], tokens)
            generator.shuffle(groups)
            for group in groups:
                yield [pool[index] for index in group]


def tensors(batch: Sequence[Example], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Padded ids, their mask, and targets."""
    longest = max(len(item.ids) for item in batch)
    ids = torch.zeros((len(batch), longest), dtype=torch.long)
    real = torch.zeros((len(batch), longest), dtype=torch.long)
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = torch.tensor(item.ids)
        real[row, : len(item.ids)] = 1
    targets = torch.from_numpy(np.stack([item.target for item in batch]))
    return ids.to(device), real.to(device), targets.to(device)


@torch.inference_mode()
def held_out_cosine(student: Student, examples: Sequence[Example]) -> float:
    """Mean cosine to the teacher."""
    student.eval()
    total = 0.0
    for group in token_budget_batches([len(item.ids) for item in examples], 8192):
        ids, real, targets = tensors([examples[index] for index in group], student.head.weight.device)
        total += float((student(ids, real) * targets).sum())
    student.train()
    return total / len(examples)


def rate_at(progress: float, *, warmup: float = 0.03) -> float:
    """Share of the peak rate at a share of the run: linear warm-up, then half a cosine down to 1 %."""
    if progress < warmup:
        return progress / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def save(student: Student, source: Checkpoint, output: Path, card: Mapping[str, object]) -> None:
    """Write the student as an encoder directory in fp16, replacing an earlier state of the same run."""
    output.mkdir(parents=True, exist_ok=True)
    tensors_of = {name: item.detach().cpu().half().contiguous() for name, item in student.backbone.state_dict().items()}
    arrays = {name: item.numpy() for name, item in tensors_of.items()}
    save_file(arrays, output / "model.safetensors", metadata={"format": "pt"})
    head = Head(
        token_weights=student.log_weights.detach().exp().cpu().numpy(),
        weight=student.head.weight.detach().cpu().numpy(),
        bias=student.head.bias.detach().cpu().numpy(),
    )
    for name in (TOKENIZER_FILE, "config.json"):
        shutil.copyfile(source.directory / name, output / name)
    write_layout(output, replace(source.config, card={**source.config.card, "distillation": card}), head)


@click.command(help="Train an encoder against cached teacher vectors.")
@click.option("--encoder", type=click.Path(exists=True), required=True, help="Encoder directory to start from.")
@click.option("--shards", type=click.Path(path_type=Path, exists=True), required=True, help="Teacher vectors of crops.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Directory of the trained encoder.")
@click.option("--minutes", type=float, required=True, help="Length of the run.")
@click.option("--rate", type=float, default=1e-3, show_default=True, help="Peak learning rate.")
@click.option("--tokens", type=int, default=8192, show_default=True, help="Padded tokens in a batch.")
@click.option("--seed", type=int, default=7, show_default=True, help="Seed of batches and held-out crops.")
def main(encoder: str, shards: Path, output: Path, minutes: float, rate: float, tokens: int, seed: int) -> None:
    """Train, measure, save."""
    torch.manual_seed(seed)
    source = find_checkpoint(encoder)
    student = Student(source).train()
    examples = read_examples(
        shards, Tokenizer.from_file(str(source.directory / TOKENIZER_FILE)), max_tokens=source.config.max_tokens
    )
    random.Random(seed).shuffle(examples)  # noqa: S311 - shuffling, not secrecy
    if len(examples) < _FEWEST:
        raise TrainingError(f"{shards} holds {len(examples)} crops; at least {_FEWEST} are needed.")
    kept = min(1000, len(examples) // 5)
    held_out, training = examples[:kept], examples[kept:]
    optimiser = torch.optim.AdamW(student.groups(rate), betas=(0.9, 0.98))
    peaks = [group["lr"] for group in optimiser.param_groups]
    seen, began, measured = 0, time.monotonic(), 0.0
    for step, batch in enumerate(batches(training, tokens=tokens, seed=seed)):
        progress = (time.monotonic() - began) / (60 * minutes)
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * rate_at(progress)
        ids, real, targets = tensors(batch, student.head.weight.device)
        loss = (1 - (student(ids, real) * targets).sum(-1)).mean()
        optimiser.zero_grad()
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(student.parameters(), 1.0))
        if not math.isfinite(norm):
            raise TrainingError(
                f"The gradient is not finite at step {step}; lower --rate. The last saved state is kept."
            )
        optimiser.step()
        seen += int(real.sum())
        if progress >= 1 or progress - measured >= 0.1 or step == 0:
            measured = progress
            card = {
                "held_out_cosine": round(held_out_cosine(student, held_out), 4),
                "crops": len(training),
                "steps": step + 1,
                "tokens": seen,
                "minutes": round((time.monotonic() - began) / 60, 1),
                "peak_rate": rate,
                "seed": seed,
            }
            save(student, source, output, card)
            click.echo(json.dumps(card))
        if progress >= 1:
            return


if __name__ == "__main__":
    main()

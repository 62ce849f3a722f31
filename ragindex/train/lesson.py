"""What adaptation has chosen to train, as one value that travels: the main process makes it, all processes learn it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ragindex.encoder import Encoder
from ragindex.train.contrastive import ContrastiveOptions, ContrastiveTraining
from ragindex.train.data.examples import Example
from ragindex.train.losses import InfoNCE
from ragindex.train.model import TrainableEncoder
from ragindex.train.objective import Reporter
from ragindex.train.preparing import Lora
from ragindex.train.processes import from_main, world_size
from ragindex.train.schedule import LoopSettings
from ragindex.train.session import Plan, Summary, run_objective
from ragindex.train.sharding import Footprint

__all__ = ["AdaptOptions", "Lesson", "assist", "give_out", "open_student"]

_LARGE = 100_000_000  # parameters above which an adapter is trained in place of everything
_TABLE_FACTOR = 10.0


@dataclass(frozen=True, slots=True)
class AdaptOptions:
    """How long, on how much, and how the proof is made.

    minutes, steps: length of the training at most. pairs: at most so many are learnt from. held_out: share of the
    documents that are asked about. questions: of each trial at most. competing: passages of a trial at most. shifts:
    exponents on inverse document frequency that are tried. rate: peak learning rate of the layers; token rows learn ten
    times as fast. negatives: hard ones of a pair, 0 for none. share: weight of the contrastive loss beside the one that
    keeps the old vectors. significance: p-value below which a difference counts.
    """

    minutes: float = 10.0
    steps: int = 200
    pairs: int = 50_000
    held_out: float = 0.3
    questions: int = 400
    competing: int = 5000
    shifts: tuple[float, ...] = (0.25, 0.5, 1.0)
    rate: float = 3e-4
    batch: int = 128
    negatives: int = 2
    temperature: float = 0.05
    share: float = 0.5
    document_tokens: int = 192
    significance: float = 0.05
    seed: int = 7


@dataclass(frozen=True, slots=True)
class Lesson:
    """encoder: the name by which the present encoder loads; output: where the candidate goes; log_weights: its token
    weights to begin with, float32 (vocabulary,), None for an encoder without any.
    """

    encoder: str
    output: Path
    examples: Sequence[Example]
    log_weights: np.ndarray | None
    options: AdaptOptions

    def to_bytes(self) -> bytes:
        """All of it, for `from_bytes`: a line of JSON, then the token weights."""
        head = {
            "encoder": self.encoder,
            "output": str(self.output),
            "examples": [asdict(example) for example in self.examples],
            "weights": self.log_weights is not None,
            "options": asdict(self.options),
        }
        weights = b"" if self.log_weights is None else self.log_weights.astype("<f4").tobytes()
        return json.dumps(head).encode() + b"\n" + weights

    @classmethod
    def from_bytes(cls, content: bytes) -> Lesson:
        """What `to_bytes` wrote."""
        line, _, weights = content.partition(b"\n")
        head = json.loads(line)
        return cls(
            encoder=head["encoder"],
            output=Path(head["output"]),
            examples=[_example(row) for row in head["examples"]],
            log_weights=np.frombuffer(weights, dtype="<f4") if head["weights"] else None,
            options=_options(head["options"]),
        )


def open_student(encoder: str, *, seed: int) -> TrainableEncoder:
    """An encoder to be adapted: all of a small one is trained, an adapter (LoRA) of a large one."""
    torch.manual_seed(seed)  # a new adapter begins at random
    model = TrainableEncoder.open(encoder)
    if sum(parameter.numel() for parameter in model.parameters()) > _LARGE:
        model = TrainableEncoder.open(encoder, lora=Lora())
    model.leave_out_idle_layers()
    return model


def give_out(
    lesson: Lesson, model: TrainableEncoder, present: Encoder, *, reporter: Reporter, footprint: Footprint
) -> Summary:
    """Train `model`, the student with the lesson's token weights, together with all processes that `assist`."""
    if world_size() > 1:
        from_main(lesson.to_bytes)
    return _learn(lesson, model, present, reporter=reporter, footprint=footprint)


def assist(*, reporter: Reporter, footprint: Footprint) -> None:
    """What a process does that is not the main one: wait for a lesson and learn it along."""
    lesson = Lesson.from_bytes(from_main(_nothing))
    present = Encoder.load(lesson.encoder)
    model = open_student(lesson.encoder, seed=lesson.options.seed)
    if lesson.log_weights is not None and model.log_weights is not None:
        with torch.no_grad():
            model.log_weights.copy_(torch.from_numpy(lesson.log_weights.copy()))
    _learn(lesson, model, present, reporter=reporter, footprint=footprint)


def _learn(
    lesson: Lesson, model: TrainableEncoder, present: Encoder, *, reporter: Reporter, footprint: Footprint
) -> Summary:
    """Contrastive training, with the vectors of the present encoder as teacher."""
    options = lesson.options
    batch = min(options.batch, len(lesson.examples) // 4) // world_size()  # of all processes as large as of one
    objective = ContrastiveTraining(
        model,
        lesson.examples,
        ContrastiveOptions(
            batch=max(2, batch),
            negatives=options.negatives,
            document_tokens=options.document_tokens,
            loss=InfoNCE(temperature=options.temperature, directions=("q-d", "d-q"), partition="separate"),
            share=options.share,
            teacher_weight=1.0,
            balance=0.5,
            table_factor=_TABLE_FACTOR,
            seed=options.seed,
        ),
        teacher=present,
    )
    plan = Plan(
        command="adapt",
        output=lesson.output,
        settings=LoopSettings(
            steps=options.steps,
            minutes=options.minutes,
            rate=options.rate,
            warmup=0.1,
            evaluations=1,
            seed=options.seed,
        ),
        options={
            "encoder": present.fingerprint,
            "pairs": len(lesson.examples),
            "negatives": options.negatives,
            "share": options.share,
        },
        footprint=footprint,
    )
    return run_objective(objective, model, plan, reporter=reporter)


def _nothing() -> bytes:
    return b""


def _example(row: dict[str, Any]) -> Example:
    return Example(**{**row, "negatives": tuple(row["negatives"]), "scores": tuple(row["scores"])})


def _options(row: dict[str, Any]) -> AdaptOptions:
    return AdaptOptions(**{**row, "shifts": tuple(row["shifts"])})

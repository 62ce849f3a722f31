"""One of several processes that train a tiny model in shards: `python sharded_crew.py FOLDER OUTPUT JOB`.
See test_train_sharding.py, which starts them and reads what they write.
"""

from __future__ import annotations

import faulthandler
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from test_train_contrastive import some
from tiny import HIDDEN, SENTENCES, tiny_tokenizer
from torch import distributed, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer

from ragindex import Encoder
from ragindex.train.clm import CausalOptions, TrainedDecoder, causal_training
from ragindex.train.contrastive import ContrastiveOptions, ContrastiveTraining
from ragindex.train.data.texts import Texts
from ragindex.train.language import LanguageModel
from ragindex.train.loop import train
from ragindex.train.mntp import MaskedEncoder, MaskedOptions, masked_training
from ragindex.train.model import TrainableEncoder
from ragindex.train.objective import Backward, Objective
from ragindex.train.prediction import PredictionOptions
from ragindex.train.preparing import Lora
from ragindex.train.processes import join, leave, rank
from ragindex.train.run import Checkpoint, Run
from ragindex.train.schedule import LoopSettings
from ragindex.train.sharding import Footprint, Shards
from ragindex.train.simcse import SimCseOptions, SimCseTraining

SHARDED = Footprint(weights="sharded")
SETTINGS = LoopSettings(steps=5, rate=3e-3, clip=0.3, log_steps=1, evaluations=2, checkpoint_steps=2)


def encoder(folder: Path, **options: Any) -> TrainableEncoder:
    model = TrainableEncoder.open(folder / "tiny", **options)
    model.mixed = False
    return model


def contrastive(folder: Path, *, chunk: int, lora: Lora | None = None) -> ContrastiveTraining:
    """Texts of very different lengths: in small chunks, the processes have unequally many."""
    options = ContrastiveOptions(batch=6, chunk=chunk, learn_temperature=True, spread=1.0)
    examples = some(60, negatives=(0, 1, 2))
    return ContrastiveTraining(encoder(folder, lora=lora), examples[10:], options, held_out=examples[:10])


def simcse(folder: Path) -> SimCseTraining:
    texts = [example.positive for example in some(60)]
    return SimCseTraining(encoder(folder, dropout=0.3), texts, SimCseOptions(batch=6, chunk=64))


def masked(folder: Path, *, lora: Lora | None = None) -> Objective:
    """Rows of different lengths, a few tokens at a time: the processes compute unequally many parts."""
    model = LanguageModel.open(folder / "tiny", attention="bidirectional")
    model.mixed = False
    steps = PredictionOptions(tokens=160, chunk=32)
    texts = Texts.of(" ".join(SENTENCES[: 1 + number % 4]) + str(number) for number in range(60))
    return masked_training(model, texts, MaskedOptions(block=64, layout="apart", lora=lora, steps=steps))


def causal(folder: Path) -> Objective:
    """A head of its own."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=HIDDEN,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LanguageModel(LlamaForCausalLM(config), tokenizer.to_str().encode())
    model.mixed = False
    texts = Texts.of(f"{sentence} {number}" for number in range(9) for sentence in SENTENCES)
    return causal_training(model, texts, CausalOptions(block=16, steps=PredictionOptions(tokens=64, chunk=32)))


def trained(objective: Objective, output: Path, footprint: Footprint) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    run = Run(output)
    if rank() == 0:
        run.begin("crew", {}, {})
    distributed.barrier()
    rows = train(objective, SETTINGS, run=run, footprint=footprint)
    return flat(objective.model), rows


def flat(model: nn.Module) -> torch.Tensor:
    """All parameters that are here, end to end."""
    parts = [item.detach().reshape(-1) for item in model.parameters() if item.device.type != "meta"]
    return torch.cat([torch.empty(0), *parts])


def compared(make: Callable[[], Objective], output: Path, footprint: Footprint = SHARDED) -> Mapping[str, Any]:
    """How far sharded training ends from training with the whole model in every process.

    passes: how often this process computed a layer, of itself, in each step.
    """
    begun = flat(make().model)
    alone, passes = make(), [0]

    def count(layer: nn.Module, *_: object) -> None:
        passes[-1] += layer.training

    def step(batch: Any, backward: Backward, taken: Callable[..., Any] = alone.step) -> Any:
        passes.append(0)
        return taken(batch, backward)

    setattr(alone, "step", step)  # noqa: B010 - a method of a protocol
    layer = next(item for item in alone.model.modules() if isinstance(item, GradientCheckpointingLayer))
    layer.register_forward_hook(count)
    expected, told = trained(alone, output / "whole", Footprint())
    found, seen = trained(make(), output / "sharded", footprint)
    if rank() > 0:
        return {"passes": passes}
    moved = (expected - begun).abs()
    return {
        "passes": passes,
        "moved": float(moved[moved > 0].median()),
        "difference": float((found - expected).abs().max()),
        "clipped": sum(row.get("gradient_norm", 0.0) > SETTINGS.clip for row in told),
        "rows": [row.keys() for row in told] == [row.keys() for row in seen],
        "numbers": max(
            abs(one[key] - other[key]) / max(1.0, abs(one[key]))
            for one, other in zip(told, seen, strict=True)
            for key in one
            if key != "seconds"
        ),
    }


def unsharded(folder: Path, output: Path) -> Mapping[str, Any]:
    """How far a run ends from where it should when its last step is done with whole models."""
    expected, _ = trained(contrastive(folder, chunk=64), output / "first", SHARDED)
    point = output / "first" / "run" / "checkpoints" / "000000004"
    objective, run = contrastive(folder, chunk=64), Run(output / "then")
    state = json.loads((point / "state.json").read_text())
    run.directory.mkdir(parents=True, exist_ok=True)
    train(objective, SETTINGS, run=run, resume=Checkpoint(state["step"], point, state))
    return {"difference": float((flat(objective.model) - expected).abs().max())} if rank() == 0 else {}


def memory(folder: Path) -> Mapping[str, Any]:
    """Parameters of the decoder that this process holds, their gradients, and what the optimiser remembers of them."""
    objective = contrastive(folder, chunk=64)
    model = objective.model
    inner = next(item for item in model.modules() if isinstance(item, TrainableEncoder))
    total = sum(item.numel() for item in inner.backbone.parameters())
    Shards(model)
    optimiser = torch.optim.AdamW(objective.parameter_groups(1e-3, weight_decay=0.01))
    objective.step(next(objective.batches(0)), torch.Tensor.backward)
    optimiser.step()
    held: dict[str, int] = {"whole": total, "weights": 0, "gradients": 0, "moments": 0}
    for item in inner.backbone.parameters():
        held["weights"] += item.to_local().untyped_storage().nbytes() // 4  # type: ignore[attr-defined]
        held["gradients"] += item.grad.to_local().numel()  # type: ignore[union-attr]
        held["moments"] += optimiser.state[item]["exp_avg"].to_local().numel()
    return held


def saved(folder: Path, output: Path) -> Mapping[str, Any]:
    """What is written after sharded training, read again."""
    from ragindex.train.session import Plan, run_objective

    objective = contrastive(folder, chunk=64, lora=Lora(rank=4, dropout=0.0))
    model = next(item for item in objective.model.modules() if isinstance(item, TrainableEncoder))
    plan = Plan("contrastive", output / "encoder", SETTINGS, {}, footprint=SHARDED)
    summary = run_objective(objective, model, plan)
    language = masked(folder, lora=Lora(rank=4))
    assert isinstance(language.model, LanguageModel)
    masked_plan = Plan("mntp", output / "mntp", SETTINGS, {}, footprint=SHARDED)
    run_objective(language, MaskedEncoder(language.model, masked_plan.output, with_adapter=True), masked_plan)
    fresh = causal(folder)
    assert isinstance(fresh.model, LanguageModel)
    run_objective(fresh, TrainedDecoder(fresh.model), Plan("clm", output / "clm", SETTINGS, {}, footprint=SHARDED))
    if rank() > 0:
        return {}
    again = Encoder.load(output / "encoder").encode_queries(SENTENCES[:3])
    with torch.no_grad():
        mine = model.eval()(model.queries(SENTENCES[:3])).numpy()
    return {
        "difference": float(abs(again - mine).max()),
        "measured": [summary.before["held_out_mrr"], summary.after["held_out_mrr"]],
        "files": {name: sorted(path.name for path in (output / name).iterdir()) for name in ("encoder", "mntp", "clm")},
    }


class Slow:
    """An objective that takes its time, to be killed in the middle."""

    def __init__(self, objective: ContrastiveTraining, seconds: float) -> None:
        self._objective, self._seconds = objective, seconds

    @property
    def model(self) -> nn.Module:
        return self._objective.model

    def parameter_groups(self, rate: float, *, weight_decay: float) -> list[dict[str, Any]]:
        return self._objective.parameter_groups(rate, weight_decay=weight_decay)

    def batches(self, epoch: int) -> Iterator[list[int]]:
        return self._objective.batches(epoch)

    def step(self, batch: list[int], backward: Backward) -> Mapping[str, float]:
        time.sleep(self._seconds)
        return self._objective.step(batch, backward)

    def evaluate(self) -> Mapping[str, float]:
        return self._objective.evaluate()


def resumed(folder: Path, output: Path, *, seconds: float) -> None:
    """Train on from where `output` stands, and write the weights."""
    objective = contrastive(folder, chunk=64, lora=Lora(rank=4))
    run = Run(output)
    resume = None
    for turn in range(2):
        if turn == rank():
            resume = run.begin("crew", {}, {})
        distributed.barrier()
    settings = LoopSettings(steps=12, rate=3e-3, checkpoint_steps=2, evaluations=1)
    train(Slow(objective, seconds), settings, run=run, resume=resume, footprint=SHARDED)
    if rank() == 0:
        (output / "weights").write_bytes(flat(objective.model).numpy().tobytes())
        (output / "resumed").write_text(str(resume.step if resume else 0))


def main(folder: Path, output: Path, job: str) -> None:
    join()
    if job in ("begin", "go-on"):
        resumed(folder, output, seconds=0.5 if job == "begin" else 0.0)
        return
    jobs: dict[str, Callable[[], Mapping[str, Any]]] = {
        "plain": lambda: compared(lambda: contrastive(folder, chunk=10_000), output / "plain"),
        "cached": lambda: compared(lambda: contrastive(folder, chunk=64), output / "cached"),
        "lora": lambda: compared(lambda: contrastive(folder, chunk=64, lora=Lora(rank=4)), output / "lora"),
        "simcse": lambda: compared(lambda: simcse(folder), output / "simcse"),
        "masked": lambda: compared(lambda: masked(folder), output / "masked"),
        "masked-lora": lambda: compared(lambda: masked(folder, lora=Lora(rank=4)), output / "masked-lora"),
        "causal": lambda: compared(lambda: causal(folder), output / "causal"),
        "recomputed": lambda: compared(
            lambda: contrastive(folder, chunk=64, lora=Lora(rank=4)),
            output / "recomputed",
            Footprint(weights="sharded", activations="recomputed"),
        ),
        "unsharded": lambda: unsharded(folder, output / "unsharded"),
        "memory": lambda: memory(folder),
        "saved": lambda: saved(folder, output),
    }
    for name, made in jobs.items():
        if job in ("all", name):
            (output / f"{name}-{rank()}.json").write_text(json.dumps(made()), encoding="utf-8")


if __name__ == "__main__":
    warnings.simplefilter("error")
    faulthandler.dump_traceback_later(840, exit=True)  # a collective that one process has left out never ends
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    leave(0)

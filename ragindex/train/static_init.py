"""The static floor: a decoder whose first state is a good bag-of-tokens encoder, made from a teacher's vectors.

1. Token rows: the teacher's vector of every single token, reduced by PCA. (model2vec: vectors of single tokens plus PCA
   and a frequency weight already make a fair encoder.) Words of the crops that its tokenizer cuts into pieces can have
   tokens of their own, as far as `words` allows: a word's vector says more than the sum of its pieces.
2. Pooling weights: smooth inverse frequency, a / (a + p(token)), counted on the crops (Arora et al., "A simple but
   tough-to-beat baseline", ICLR 2017).
3. Output projections of attention and MLP are zero, so the decoder passes its token rows through unchanged.
   Its pooling counts tokens by place and repetition (`Counting`), and may be asked for by its mean (`MeanQuery`): what
   a transformer finds out by itself, a bag of tokens has to be told.
4. Head: ridge regression from the pooled rows to the teacher's vectors of the crops.
5. Refinement: rows, weights, query and head are trained together against the same vectors, by cosine (as model2vec's
   tokenlearn does). Once through the crops: every epoch more brings the vectors nearer to the teacher's on text like
   that of the crops, and takes from what they find in other text (docs/bundled.md).
6. Contrast, if pairs are given: see `ragindex.train.static_contrast`.

The rows go through the decoder's final RMSNorm, which erases their length; that is why frequency lives in the pooling
weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tqdm import tqdm
from transformers import LlamaConfig, LlamaModel

from ragindex.encoder.checkpoint import TOKENIZER_FILE, Counting, EncoderConfig, Pooling
from ragindex.encoder.head import Head
from ragindex.encoder.layout import write_layout
from ragindex.encoder.prompts import Prompts
from ragindex.errors import TrainingError, UsageError
from ragindex.train.own_words import cut_words, with_words
from ragindex.train.run import writing
from ragindex.train.static_model import Bags, StaticModel, bags_of
from ragindex.train.teacher import read_shards
from ragindex.train.token_vectors import token_vectors

__all__ = ["Shape", "Stage", "StaticOptions", "make_static"]


_FEWEST = 10  # crops, for a share of them to be held out


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of the decoder, its pooling ("mean" or "mean-query"), and how much tokens count in it."""

    hidden: int = 256
    layers: int = 4
    heads: int = 4
    intermediate: int = 768
    max_tokens: int = 512
    pooling: Pooling = "mean"
    counting: Counting = field(default_factory=Counting)


def read_bags(directory: Path, tokenizer: Tokenizer, *, max_tokens: int, counting: Counting) -> Bags:
    """All crops of a shard directory. Raises TrainingError when there are none."""
    ids: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    for crops, vectors in read_shards(directory):
        kept = []
        for row, encoding in enumerate(tokenizer.encode_batch_fast(crops, add_special_tokens=False)):
            if encoding.ids:
                ids.append(np.asarray(encoding.ids[:max_tokens], dtype=np.int32))
                kept.append(row)
        targets.append(vectors[kept])
    if not ids:
        raise TrainingError(f"{directory} holds no finished shards; make them with `ragindex train vectors`.")
    return bags_of(ids, torch.from_numpy(np.concatenate(targets)), counting=counting)


def initial_rows(tokens: np.ndarray, hidden: int) -> torch.Tensor:
    """The teacher's vectors of single tokens, PCA-reduced to (vocabulary, hidden), unit root mean square."""
    vectors = torch.from_numpy(tokens)
    vectors = vectors - vectors.mean(0)
    _, axes = torch.linalg.eigh(vectors.T @ vectors)
    rows = vectors @ axes.flip(1)[:, :hidden]
    normalised: torch.Tensor = rows / rows.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)
    return normalised


def frequency_weights(bags: Bags, vocabulary: int, *, smoothing: float = 1e-3) -> torch.Tensor:
    """Smooth inverse frequency of each token, as it is counted, in (0, 1]."""
    counts = torch.bincount(bags.ids, bags.counts.double(), minlength=vocabulary).float()
    weights: torch.Tensor = smoothing / (smoothing + counts / counts.sum())
    return weights


def fit_head(model: StaticModel, bags: Bags, *, ridge: float = 1e-3) -> None:
    """Set the head to the ridge regression from pooled rows to targets."""
    with torch.no_grad():
        pooled = torch.cat([model.pooled(bags.take(rows)) for rows in torch.arange(len(bags)).split(8192)])
        design = torch.cat([pooled, torch.ones(len(pooled), 1)], dim=1)
        gram = design.T @ design
        gram += ridge * gram.diagonal().mean() * torch.eye(len(gram))
        solution = torch.linalg.solve(gram, design.T @ bags.targets)
        model.head.weight.copy_(solution[:-1].T)
        model.head.bias.copy_(solution[-1])


def refine(
    model: StaticModel, bags: Bags, *, epochs: int, batch: int = 1024, rate: float = 3e-3, seed: int = 7
) -> None:
    """Train all of `model` against the targets by cosine, with a linearly falling rate."""
    generator = torch.Generator().manual_seed(seed)
    groups = [
        {"params": [model.rows, model.log_weights], "lr": rate * 10},
        {"params": model.head.parameters(), "lr": rate / 3},
    ]
    if model.query is not None:
        groups.append({"params": [model.query], "lr": rate * 3})
    optimiser = torch.optim.Adam(groups, fused=True)
    steps = epochs * -(-len(bags) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0 - step / steps)
    with tqdm(total=steps, unit="step") as progress:
        for _ in range(epochs):
            for rows in torch.randperm(len(bags), generator=generator).split(batch):
                part = bags.take(rows)
                loss = (1 - (model(part) * part.targets).sum(-1)).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                progress.set_postfix(loss=f"{loss.item():.4f}")
                progress.update()


@torch.no_grad()
def cosine(model: StaticModel, bags: Bags) -> float:
    """Mean cosine to the targets."""
    scores = [(model(part) * part.targets).sum(-1) for part in map(bags.take, torch.arange(len(bags)).split(8192))]
    return float(torch.cat(scores).mean())


def decoder(shape: Shape, rows: torch.Tensor, *, pad: int | None, seed: int) -> LlamaModel:
    """A Llama decoder with these token rows that, as it stands, passes them through: output projections are zero."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(rows),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.max_tokens,
        pad_token_id=pad,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=True,
    )
    config.is_causal = False
    model = LlamaModel(config)
    with torch.no_grad():
        model.embed_tokens.weight.copy_(rows)
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
    return model


def plain_tokenizer(file: Path) -> Tokenizer:
    """The teacher's tokenizer without special tokens, padding and truncation: a bag of words needs none of them."""
    table = json.loads(file.read_text(encoding="utf-8"))
    table.update(post_processor=None, padding=None, truncation=None)
    return Tokenizer.from_str(json.dumps(table))


@dataclass(frozen=True, slots=True)
class StaticOptions:
    """shape: of the decoder. words: how many words that the teacher's tokenizer cuts get a token of their own. epochs:
    of refinement, 0 leaves it out. steps: of contrast, if there are pairs. trust: weight beside BM25 in hybrid search.
    """

    shape: Shape = Shape()
    words: int = 0
    epochs: int = 1
    steps: int = 300
    trust: float = 1.0
    seed: int = 7


@dataclass(frozen=True, slots=True)
class Stage:
    """What was done to the encoder, and its mean cosine to the teacher afterwards, on crops it did not learn from."""

    step: str
    held_out_cosine: float


def make_static(
    teacher: Path,
    shards: Path,
    output: Path,
    *,
    pairs: Sequence[Path] = (),
    options: StaticOptions | None = None,
    done: Callable[[Stage], None] | None = None,
) -> list[Stage]:
    """Make a static encoder in `output` from the teacher's tokens and its vectors of crops; how well it did.

    teacher: see `token_vectors`; pairs: record files to contrast; done: told of each stage. Raises TrainingError for
    too few crops, UsageError for an output that is not empty.
    """
    from ragindex.train.static_contrast import contrast, read_pairs

    options = options or StaticOptions()
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty; choose another --output.")
    tokenizer = plain_tokenizer(teacher / TOKENIZER_FILE)
    words = cut_words((crop for crops, _ in read_shards(shards) for crop in crops), tokenizer, most=options.words)
    vectors = token_vectors(teacher, tokenizer.get_vocab_size(), words)
    tokenizer = with_words(tokenizer, words)
    bags = read_bags(shards, tokenizer, max_tokens=options.shape.max_tokens, counting=options.shape.counting)
    if len(bags) < _FEWEST:
        raise TrainingError(f"{shards} holds {len(bags)} crops; at least {_FEWEST} are needed.")
    order = torch.randperm(len(bags), generator=torch.Generator().manual_seed(options.seed))
    kept = min(2000, len(bags) // 5)
    held_out, training = bags.take(order[:kept]), bags.take(order[kept:])
    rows = initial_rows(vectors, options.shape.hidden)
    weights = frequency_weights(training, len(rows))
    model = StaticModel(rows, weights, bags.targets.shape[1], asking=options.shape.pooling == "mean-query")
    fit_head(model, training)
    history: list[Stage] = []

    def note(step: str) -> None:
        history.append(Stage(step, round(cosine(model, held_out), 4)))
        if done is not None:
            done(history[-1])

    note("token rows, frequency weights, ridge head")
    if options.epochs:
        refine(model, training, epochs=options.epochs, seed=options.seed)
        note(f"refinement, {options.epochs} epoch{'s' if options.epochs > 1 else ''}")
    if pairs:
        sources = [read_pairs(file, tokenizer) for file in pairs]
        contrast(model, sources, training, steps=options.steps, counting=options.shape.counting, seed=options.seed)
        note(f"contrast with pairs of {len(pairs)} sources, {options.steps} steps")
    card = {
        "crops": len(training),
        "words": len(words),
        "steps": [asdict(stage) for stage in history],
        "text": sorted(file.name for file in pairs),
    }
    with writing(output):
        write_encoder(output, model, options.shape, tokenizer, seed=options.seed, trust=options.trust, card=card)
    return history


def write_encoder(
    output: Path,
    model: StaticModel,
    shape: Shape,
    tokenizer: Tokenizer,
    *,
    seed: int,
    trust: float,
    card: Mapping[str, object],
) -> None:
    """Write decoder, head, tokenizer and configuration into `output`."""
    output.mkdir(parents=True, exist_ok=True)
    pad = tokenizer.token_to_id("[PAD]")
    rows = model.rows.detach()
    rows = rows / rows.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)
    decoder(shape, rows, pad=pad, seed=seed).half().save_pretrained(output)
    head = Head(
        token_weights=model.log_weights.detach().exp().numpy().astype(np.float32),
        weight=model.head.weight.detach().numpy().astype(np.float32),
        bias=model.head.bias.detach().numpy().astype(np.float32),
        pooler={} if model.query is None else {"query": model.query.detach().numpy().astype(np.float32)},
    )
    tokenizer.save(str(output / TOKENIZER_FILE))
    config = EncoderConfig(
        dimensions=len(model.head.weight),
        max_tokens=shape.max_tokens,
        prompts=Prompts(),
        pooling=shape.pooling,
        saturation=shape.counting.saturation,
        lead=shape.counting.lead,
        trust=trust,
        card={"method": "static floor: ragindex train static", "seed": seed, **card},
    )
    write_layout(output, config, head)

"""Merging encoders: soups, arcs and learned weights, of weights as they lie on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch
from sentence_transformers import SentenceTransformer
from tiny import SENTENCES, tiny_encoder
from transformers import AutoModel

from ragindex.cli import main
from ragindex.encoder import Encoder, Prompts, find_checkpoint, torch_forward
from ragindex.encoder.checkpoint import write_config
from ragindex.encoder.head import Head
from ragindex.encoder.layout import write_layout
from ragindex.encoder.pooling import GeneralisedMean
from ragindex.errors import RagIndexError, TrainingError, UsageError
from ragindex.train import merging, model
from ragindex.train.data.examples import Example, write_examples
from ragindex.train.losses.candidates import Contrast
from ragindex.train.losses.contrastive import info_nce
from ragindex.train.merge_methods import slerp_coefficients
from ragindex.train.merging import Recipe, SelfPosition, Slerp, Soup, merge
from ragindex.train.model import TrainableEncoder
from ragindex.train.positioning import _Search
from ragindex.train.tensors import TensorFiles, rounded

WEIGHTS = "model.safetensors"
NORM = "norm.weight"


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (torch_forward, model):
        monkeypatch.setattr(module, "choose_dtype", lambda device: torch.float32)


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    """Two encoders that differ in all their weights."""
    return [str(tiny_encoder(tmp_path / name, seed=seed)) for seed, name in enumerate(["one", "two"])]


def change(directory: str, **tensors: np.ndarray) -> str:
    """Replace tensors of a decoder; a keyword stands for `keyword.weight`."""
    file = Path(directory) / WEIGHTS
    named = {f"{name}.weight": np.asarray(tensor, np.float32) for name, tensor in tensors.items()}
    save_file({**load_file(file), **named}, file, metadata={"format": "pt"})
    return directory


def tensors(directory: str | Path) -> dict[str, np.ndarray]:
    return load_file(Path(directory) / WEIGHTS)


def axis(number: int) -> np.ndarray:
    return np.eye(32, dtype=np.float32)[number]


def test_a_soup_is_the_weighted_mean_of_every_tensor(pair: list[str], tmp_path: Path) -> None:
    change(pair[0], norm=np.full(32, 1.0)), change(pair[1], norm=np.full(32, 3.0))
    result = merge(pair, tmp_path / "even", Soup())
    np.testing.assert_array_equal(tensors(tmp_path / "even")[NORM], np.full(32, 2.0, np.float32))
    assert [item.weight for item in result.ingredients] == [0.5, 0.5]
    merge(pair, tmp_path / "uneven", Soup((1, 3)))
    np.testing.assert_array_equal(tensors(tmp_path / "uneven")[NORM], np.full(32, 2.5, np.float32))
    one, two, made = tensors(pair[0]), tensors(pair[1]), tensors(tmp_path / "uneven")
    assert made.keys() == one.keys()
    for name in made:
        np.testing.assert_allclose(made[name], 0.25 * one[name] + 0.75 * two[name], rtol=1e-6, atol=1e-7)


def test_the_head_is_merged_with_the_decoder(pair: list[str], tmp_path: Path) -> None:
    merge(pair, tmp_path / "made", Soup())
    one, two, made = (Head.read(Path(directory)) for directory in (*pair, tmp_path / "made"))
    assert made.weight is not None
    assert made.bias is not None
    np.testing.assert_allclose(made.weight, (one.weight + two.weight) / 2, atol=1e-7)
    np.testing.assert_allclose(made.bias, (one.bias + two.bias) / 2, atol=1e-7)
    np.testing.assert_array_equal(made.token_weights, one.token_weights)  # the same in both: counts of the same text


def test_a_pooling_with_weights_is_merged(tmp_path: Path) -> None:
    names = []
    for power in (2.0, 4.0):
        directory = tiny_encoder(tmp_path / str(power), head=False)
        config = find_checkpoint(str(directory)).config
        shutil.rmtree(directory / "2_Pooling", ignore_errors=True)
        pooler = {name: value.numpy() for name, value in GeneralisedMean(power).state_dict().items()}
        pooled = type(config)(
            **{**{key: getattr(config, key) for key in config.__slots__}, "pooling": "generalised-mean"}
        )
        write_layout(directory, pooled, Head(pooler=pooler))
        names.append(str(directory))
    merge(names, tmp_path / "made", Soup())
    assert float(Head.read(tmp_path / "made").pooler["power"]) == 3.0
    assert np.isfinite(Encoder.load(tmp_path / "made", device="cpu").encode_documents(["a key"])).all()


def test_slerp_follows_the_arc_tensor_by_tensor(pair: list[str], tmp_path: Path) -> None:
    change(pair[0], norm=axis(0)), change(pair[1], norm=axis(1))
    merge(pair, tmp_path / "half", Slerp(0.5))
    np.testing.assert_allclose(tensors(tmp_path / "half")[NORM], (axis(0) + axis(1)) * 0.70710678, atol=1e-7)
    merge(pair, tmp_path / "third", Slerp(1 / 3))
    np.testing.assert_allclose(tensors(tmp_path / "third")[NORM], 0.8660254 * axis(0) + 0.5 * axis(1), atol=1e-7)
    # Lengths are kept, not only directions: twice as long a tensor stays so at its end of the arc.
    change(pair[1], norm=2 * axis(1))
    merge(pair, tmp_path / "longer", Slerp(0.5))
    np.testing.assert_allclose(
        tensors(tmp_path / "longer")[NORM], 0.70710678 * axis(0) + 1.41421356 * axis(1), atol=1e-6
    )


@pytest.mark.parametrize(
    ("cosine", "t", "expected"),
    [
        (0.5, 0.25, (0.8164966, 0.2988585)),  # sin 45° / sin 60°, sin 15° / sin 60°
        (0.0, 0.0, (1.0, 0.0)),
        (0.0, 1.0, (0.0, 1.0)),
        (1.0, 0.25, (0.75, 0.25)),
        (0.99999, 0.25, (0.75, 0.25)),
        (1.0000001, 0.25, (0.75, 0.25)),  # rounding
        (-1.0, 0.25, (0.75, 0.25)),
    ],
)
def test_slerp_coefficients(cosine: float, t: float, expected: tuple[float, float]) -> None:
    np.testing.assert_allclose(slerp_coefficients(cosine, t), expected, atol=1e-6)


def test_slerp_of_zeros_is_a_line(pair: list[str], tmp_path: Path) -> None:
    change(pair[0], norm=np.zeros(32)), change(pair[1], norm=np.ones(32))
    merge(pair, tmp_path / "made", Slerp(0.25))
    np.testing.assert_allclose(tensors(tmp_path / "made")[NORM], np.full(32, 0.25), atol=1e-7)


@pytest.mark.parametrize(("copies", "recipe"), [(2, Soup()), (3, Soup((1, 1, 5))), (2, Slerp(0.3))], ids=str)
def test_an_encoder_merged_with_itself_is_itself(copies: int, recipe: Recipe, tmp_path: Path) -> None:
    name = str(tiny_encoder(tmp_path / "one"))
    result = merge([name] * copies, tmp_path / "made", recipe)
    assert result.fingerprint == Encoder.load(name).fingerprint
    assert (tmp_path / "made" / "tokenizer.json").read_bytes() == (tmp_path / "one" / "tokenizer.json").read_bytes()


def test_the_result_is_an_encoder_for_both_programs(pair: list[str], tmp_path: Path) -> None:
    merge(pair, tmp_path / "made", Soup())
    encoder = Encoder.load(tmp_path / "made", device="cpu")
    theirs = SentenceTransformer(str(tmp_path / "made"), device="cpu", local_files_only=True)
    np.testing.assert_allclose(encoder.encode_documents(SENTENCES), theirs.encode_document(list(SENTENCES)), atol=1e-5)
    assert not np.allclose(
        encoder.encode_documents(["a key"]), Encoder.load(pair[0]).encode_documents(["a key"]), atol=0.1
    )


def test_the_card_names_the_ingredients_and_what_they_have_in_common(pair: list[str], tmp_path: Path) -> None:
    for number, name in enumerate(pair):
        checkpoint = find_checkpoint(name)
        card = {"clm": {"steps": 10}, "contrastive": {"steps": number}}
        write_config(
            checkpoint.directory, type(checkpoint.config).from_json({**checkpoint.config.as_json(), "card": card})
        )
    result = merge(pair, tmp_path / "made", Slerp(0.25))
    card = Encoder.load(tmp_path / "made").config.card
    assert card.keys() == {"clm", "merge"}
    assert card["merge"]["method"] == "slerp"
    assert card["merge"]["t"] == 0.25
    assert card["merge"]["encoders"] == [
        f"0.75 × {pair[0]} ({Encoder.load(pair[0]).fingerprint})",
        f"0.25 × {pair[1]} ({Encoder.load(pair[1]).fingerprint})",
    ]
    assert [(item.name, item.weight) for item in result.ingredients] == [(pair[0], 0.75), (pair[1], 0.25)]
    assert "slerp" in (tmp_path / "made" / "README.md").read_text(encoding="utf-8")


def test_licences_are_kept_and_different_ones_are_kept_apart(pair: list[str], tmp_path: Path) -> None:
    third = str(shutil.copytree(pair[0], tmp_path / "three"))
    for name, text in zip([*pair, third], ["MIT", "Apache", "MIT"], strict=True):
        (Path(name) / "LICENSE").write_text(text, encoding="utf-8")
    merge([*pair, third], tmp_path / "made", Soup())
    found = {file.name: file.read_text(encoding="utf-8") for file in (tmp_path / "made").glob("LICENSE*")}
    assert found == {"LICENSE": "MIT", "LICENSE.2": "Apache"}


def test_limits_that_decide_no_vector_are_reconciled(tmp_path: Path) -> None:
    names = []
    for number, (tokens, matryoshka, trust) in enumerate([(128, [8, 16], 0.5), (64, [16], 1.0)]):
        directory = tiny_encoder(tmp_path / str(number), seed=number)
        config = find_checkpoint(str(directory)).config
        table = {**config.as_json(), "max_tokens": tokens, "matryoshka": matryoshka, "trust": trust}
        write_config(directory, type(config).from_json(table))
        names.append(str(directory))
    merge(names, tmp_path / "made", Soup())
    config = Encoder.load(tmp_path / "made").config
    assert (config.max_tokens, config.matryoshka, config.trust) == (64, (16,), 0.75)


def test_weights_keep_their_type_and_are_rounded_once(pair: list[str], tmp_path: Path) -> None:
    for name in pair:
        file = Path(name) / WEIGHTS
        save_file({key: value.astype(np.float16) for key, value in load_file(file).items()}, file)
    merge(pair, tmp_path / "half", Soup())
    one, two, made = tensors(pair[0])[NORM], tensors(pair[1])[NORM], tensors(tmp_path / "half")[NORM]
    assert made.dtype == np.float16
    np.testing.assert_array_equal(made, ((one.astype(np.float64) + two) / 2).astype(np.float16))
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "float16"
    change(pair[1], norm=np.ones(32))  # one tensor is float32 now
    merge(pair, tmp_path / "mixed", Soup())
    kinds = {name: tensor.dtype for name, tensor in tensors(tmp_path / "mixed").items()}
    assert kinds.pop(NORM) == np.float32
    assert set(kinds.values()) == {np.dtype(np.float16)}


def test_bfloat16_is_merged_although_numpy_has_none(pair: list[str], tmp_path: Path) -> None:
    for name in pair:
        file = Path(name) / WEIGHTS
        halves = {key: torch.from_numpy(value).bfloat16() for key, value in load_file(file).items()}
        save_torch(halves, file, metadata={"format": "pt"})
    merge(pair, tmp_path / "made", Soup())
    found = [AutoModel.from_pretrained(name, dtype="auto").state_dict() for name in (*pair, tmp_path / "made")]
    for name, tensor in found[2].items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, ((found[0][name].double() + found[1][name].double()) / 2).bfloat16())


def test_bfloat16_rounds_to_the_nearest_and_ties_to_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, 1.004, -1.00390625, 0.0])
    expected = torch.tensor(values).bfloat16()
    assert expected.tolist() == [1.0, 1.0, 1.015625, 1.0078125, -1.0, 0.0]
    np.testing.assert_array_equal(rounded(values, "BF16"), expected.view(torch.uint16).numpy())
    for kind, value in (("BF16", 3.5e38), ("F16", 7e4), ("F32", 1e39), ("F32", np.nan)):
        with pytest.raises(TrainingError, match=kind):
            rounded(np.array([value]), kind)


def test_tensors_are_combined_in_blocks(pair: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = merge(pair, tmp_path / "whole", Slerp(0.4))
    monkeypatch.setattr(merging, "BLOCK", 7)
    assert merge(pair, tmp_path / "blocks", Slerp(0.4)).fingerprint == whole.fingerprint


def test_half_a_tensor_that_is_equal_still_lies_on_the_arc(
    pair: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "BLOCK", 16)
    change(pair[0], norm=np.repeat([1.0, 0.0], 16)), change(pair[1], norm=np.repeat([1.0, 1.0], 16))
    merge(pair, tmp_path / "made", Slerp(0.5))
    share = np.sin(np.pi / 8) / np.sin(np.pi / 4)  # 45° apart
    np.testing.assert_allclose(tensors(tmp_path / "made")[NORM], np.repeat([2 * share, share], 16), atol=1e-6)


def test_weights_in_several_files(pair: list[str], tmp_path: Path) -> None:
    whole = merge(pair, tmp_path / "whole", Soup())
    file = Path(pair[0]) / WEIGHTS
    named = load_file(file)
    parts = {
        "model-00001-of-00002.safetensors": sorted(named)[:9],
        "model-00002-of-00002.safetensors": sorted(named)[9:],
    }
    for part, names in parts.items():
        save_file({name: named[name] for name in names}, file.with_name(part), metadata={"format": "pt"})
    file.unlink()
    index = {"weight_map": {name: part for part, names in parts.items() for name in names}}
    (Path(pair[0]) / f"{WEIGHTS}.index.json").write_text(json.dumps(index), encoding="utf-8")
    merge(pair, tmp_path / "parts", Soup())
    assert {file.name for file in (tmp_path / "parts").glob("*.safetensors")} == parts.keys()
    made = TensorFiles(find_checkpoint(str(tmp_path / "parts")).weight_files())
    for name, tensor in tensors(tmp_path / "whole").items():
        np.testing.assert_array_equal(made.raw(name).reshape(tensor.shape), tensor)
    ours, theirs = Encoder.load(tmp_path / "parts", device="cpu"), Encoder.load(tmp_path / "whole", device="cpu")
    np.testing.assert_allclose(ours.encode_documents(SENTENCES), theirs.encode_documents(SENTENCES), atol=1e-6)
    merge(pair[::-1], tmp_path / "one-file", Soup())  # the first one decides
    assert Encoder.load(tmp_path / "one-file").fingerprint == whole.fingerprint


def test_a_language_model_is_merged_by_its_decoder(pair: list[str], tmp_path: Path) -> None:
    whole = merge(pair, tmp_path / "whole", Soup())
    file = Path(pair[1]) / WEIGHTS
    named = load_file(file)
    causal = {f"model.{name}": tensor for name, tensor in named.items()}
    save_file({**causal, "lm_head.weight": named["embed_tokens.weight"]}, file, metadata={"format": "pt"})
    assert merge(pair, tmp_path / "made", Soup()).fingerprint == whole.fingerprint


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # from peft
def test_adapters_are_merged_into_their_base_first(tmp_path: Path) -> None:
    base = tiny_encoder(tmp_path / "base", head=False)
    for name in ("ragindex.json", "modules.json"):
        (base / name).unlink()
    names, merged = [], []
    for number in range(2):
        torch.manual_seed(number)
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        wrapped = peft.get_peft_model(AutoModel.from_pretrained(base, dtype=torch.float32), config)
        names.append(str(tmp_path / f"adapter{number}"))
        wrapped.save_pretrained(names[-1])
        merged.append(dict(wrapped.merge_and_unload().state_dict()))
    merge(names, tmp_path / "made", Soup())
    name = "layers.0.mlp.down_proj.weight"
    mean = (merged[0][name] + merged[1][name]).numpy() / 2
    np.testing.assert_allclose(tensors(tmp_path / "made")[name], mean, atol=1e-6)
    # What they were trained from need not be used as they are: it has no prompts of its own.
    recipe = SelfPosition(str(base), PROBE, steps=2)
    found = merge(names, tmp_path / "learned", recipe).ingredients
    assert [item.name for item in found] == [*names, str(base)]
    mean = sum(item.weight * other[name].numpy() for item, other in zip(found, merged, strict=False))
    mean += found[2].weight * tensors(base)[name]
    np.testing.assert_allclose(tensors(tmp_path / "learned")[name], mean, atol=1e-6)


def edited(**changes: object) -> Callable[[Path], Path]:
    """A maker of encoders whose config.json says something else."""

    def make(directory: Path) -> Path:
        file = tiny_encoder(directory) / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}), encoding="utf-8")
        return directory

    return make


def made(**options: object) -> Callable[[Path], Path]:
    return lambda directory: tiny_encoder(directory, **options)


def cased(directory: Path) -> Path:
    file = tiny_encoder(directory) / "tokenizer.json"
    table = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**table, "normalizer": None}), encoding="utf-8")
    return directory


def without(name: str) -> Callable[[Path], Path]:
    def make(directory: Path) -> Path:
        file = tiny_encoder(directory) / WEIGHTS
        save_file({key: value for key, value in load_file(file).items() if key != name}, file)
        return directory

    return make


def reshaped(directory: Path) -> Path:
    return Path(change(str(tiny_encoder(directory)), norm=np.ones(16)))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (edited(model_type="mistral"), "architectures differ ('llama' and 'mistral')"),
        (made(key_heads=4), "num_key_value_heads in config.json differ (2 and 4)"),
        (edited(rms_norm_eps=1e-5), "rms_norm_eps in config.json differ"),
        (made(head=False), "dimensions differ (24 and 32)"),
        (made(attention="causal"), "kinds of attention differ ('bidirectional' and 'causal')"),
        (made(pooling="last"), "poolings differ ('mean' and 'last')"),
        (made(prompts=Prompts(query="q: {text}")), "prompts (query) differ ('{text}' and 'q: {text}')"),
        (cased, "tokenizers differ"),
        (reshaped, "the shapes of norm.weight differ ([32] and [16])"),
        (without("layers.1.mlp.up_proj.weight"), "only "),
    ],
)
def test_encoders_that_differ_in_more_than_weights_are_refused(
    make: Callable[[Path], Path], said: str, tmp_path: Path
) -> None:
    names = [str(tiny_encoder(tmp_path / "one")), str(make(tmp_path / "two"))]
    with pytest.raises(TrainingError) as caught:
        merge(names, tmp_path / "made", Soup())
    assert said in str(caught.value)
    assert str(caught.value).endswith(".")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["one", "two"]


def test_heads_that_differ_in_kind_are_refused(tmp_path: Path) -> None:
    names = [str(tiny_encoder(tmp_path / name)) for name in ("one", "two")]
    checkpoint = find_checkpoint(names[1])
    head = Head.read(checkpoint.directory)
    for folder in Path(names[1]).glob("[0-9]_*"):
        shutil.rmtree(folder)
    write_layout(checkpoint.directory, checkpoint.config, Head(token_weights=head.token_weights, weight=head.weight))
    with pytest.raises(TrainingError, match=r"only .*one has a bias of its linear map"):
        merge(names, tmp_path / "made", Soup())


@pytest.mark.parametrize(
    ("count", "recipe", "said"),
    [
        (1, Soup(), "at least two"),
        (2, Soup((1.0,)), "2 encoders but 1 weights"),
        (2, Soup((1.0, -1.0)), "must not be negative"),
        (2, Soup((0.0, 0.0)), "nor all of them 0"),
        (3, Slerp(), "exactly two encoders, not 3"),
        (2, Slerp(1.5), "between 0"),
        (2, SelfPosition("base", [Example("a", "b")]), "at least two pairs"),
        (2, SelfPosition("base", [Example("a", "b")] * 2, steps=0), "at least one step"),
        (2, SelfPosition("base", [Example("a", "b")] * 2, rate=float("nan")), "rate"),
        (2, SelfPosition("base", [Example("a", "b")] * 2, seed=-1), "seed"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(count: int, recipe: Recipe, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        merge(["nowhere"] * count, tmp_path / "made", recipe)


def test_nothing_is_left_of_a_merge_that_fails(pair: list[str], tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not an empty directory"):
        merge(pair, tmp_path / "full", Soup())
    change(pair[0], norm=np.full(32, np.nan))
    with pytest.raises(TrainingError, match="not finite"):
        merge(pair, tmp_path / "made", Soup())
    content = (Path(pair[1]) / WEIGHTS).read_bytes()
    (Path(pair[1]) / WEIGHTS).write_bytes(content[:-100])
    with pytest.raises(RagIndexError, match="cannot be read"):
        merge(pair, tmp_path / "made", Soup())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["full", "one", "two"]


PROBE = [
    Example(" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :]))
    for words in (sentence.split() for sentence in SENTENCES)
]


def probe_loss(encoder: TrainableEncoder) -> torch.Tensor:
    queries = encoder(encoder.queries([example.query for example in PROBE]))
    return info_nce(Contrast(queries, encoder(encoder.documents([example.positive for example in PROBE]))))


def trained(base: Path, directory: Path, *, steps: int = 12) -> str:
    """`base` after some steps on PROBE."""
    encoder = TrainableEncoder.open(base, device="cpu")
    optimiser = torch.optim.Adam(encoder.parameters(), lr=0.01)
    for _ in range(steps):
        loss = probe_loss(encoder)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    encoder.save(directory, card={})
    return str(directory)


def noisy(base: Path, directory: Path) -> str:
    """`base` with noise on every tensor."""
    shutil.copytree(base, directory)
    draw = np.random.default_rng(0)
    file = directory / WEIGHTS
    named = {key: value + 0.3 * draw.standard_normal(value.shape) for key, value in load_file(file).items()}
    save_file({key: value.astype(np.float32) for key, value in named.items()}, file, metadata={"format": "pt"})
    return str(directory)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    """A base, an encoder that learned from it what PROBE asks for, and one that only lost something."""
    folder = tmp_path_factory.mktemp("tasks")
    base = tiny_encoder(folder / "base")
    return str(base), trained(base, folder / "good"), noisy(base, folder / "bad")


def test_learned_weights_favour_what_helps(tasks: Sequence[str], tmp_path: Path) -> None:
    base, good, bad = tasks
    recipe = SelfPosition(base, PROBE, steps=40, batch=10, rate=0.1)
    result = merge([good, bad], tmp_path / "made", recipe)
    probe = result.notes["probe"]
    assert probe["loss_learned"] < probe["loss_even"] - 0.1
    weights = {item.name: item.weight for item in result.ingredients}
    assert weights[good] > 0.7
    assert abs(weights[bad]) < 0.3
    assert sum(weights.values()) == pytest.approx(1)
    assert Encoder.load(tmp_path / "made").config.card["merge"]["probe"] == probe
    # What was written is what was measured.
    with torch.no_grad():
        loss = float(probe_loss(TrainableEncoder.open(tmp_path / "made", device="cpu").eval()))
    assert loss == pytest.approx(probe["loss_learned"], abs=1e-3)


def test_the_derivative_by_the_weights_is_right(tasks: Sequence[str], tmp_path: Path) -> None:
    base, *names = tasks
    names.append(str(shutil.copytree(base, tmp_path / "weighed")))  # differs in its token weights alone
    file = tmp_path / "weighed" / "1_WordWeights" / WEIGHTS
    named = load_file(file)
    factors = np.random.default_rng(0).uniform(0.2, 3, named["emb_layer.weight"].shape).astype(np.float32)
    save_file({name: factors * weights for name, weights in named.items()}, file)
    search = _Search(names, SelfPosition(base, PROBE, batch=len(PROBE)))
    weights, step = torch.tensor([0.4, 0.2, 0.5]), 1e-3
    slope = search.gradient(weights, PROBE)
    for number in range(3):
        aside = step * torch.eye(3)[number]
        difference = (search.measure(weights + aside) - search.measure(weights - aside)) / (2 * step)
        assert float(slope[number]) == pytest.approx(difference, rel=0.02, abs=2e-3)


def test_weights_stay_even_where_learning_makes_nothing_better(tasks: Sequence[str], tmp_path: Path) -> None:
    base, good, bad = tasks
    result = merge([good, bad], tmp_path / "made", SelfPosition(base, PROBE, steps=1, batch=10, rate=50.0))
    assert result.notes["probe"]["loss_learned"] == result.notes["probe"]["loss_even"]
    assert [item.weight for item in result.ingredients] == [0.5, 0.5, 0.0]


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["encoder", "merge", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_merges_and_says_how(pair: list[str], tmp_path: Path) -> None:
    code, out, _ = run(*pair, "--weights", "3,1", "--output", tmp_path / "soup")
    assert code == 0
    assert out.splitlines()[:2] == [f"0.750  {pair[0]}", f"0.250  {pair[1]}"]
    code, out, _ = run(*pair, "--method", "slerp", "--output", tmp_path / "arc", "--json")
    table = json.loads(out)
    assert code == 0
    assert table["encoders"] == [
        {"name": name, "fingerprint": Encoder.load(name).fingerprint, "weight": 0.5} for name in pair
    ]
    assert (table["method"], table["t"], table["output"]) == ("slerp", 0.5, str(tmp_path / "arc"))
    assert table["fingerprint"] == Encoder.load(tmp_path / "arc").fingerprint


def test_the_command_learns_weights(tasks: Sequence[str], tmp_path: Path) -> None:
    base, good, bad = tasks
    write_examples(tmp_path / "pairs.jsonl", PROBE)
    options = ["--method", "self-position", "--base", base, "--pairs", tmp_path / "pairs.jsonl", "--steps", 2]
    code, out, _ = run(good, bad, *options, "--output", tmp_path / "made", "--json")
    assert code == 0
    table = json.loads(out)
    assert [item["name"] for item in table["encoders"]] == [good, bad, base]
    assert table["probe"]["pairs"] == len(PROBE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--t", "0.5"], "--t belongs to --method slerp"),
        (["--method", "slerp", "--weights", "1,1"], "--weights belongs to --method soup"),
        (["--weights", "1;1"], "--weights is '1;1'; give numbers such as 0.7,0.3"),
        (["--method", "self-position"], "needs --base"),
    ],
)
def test_the_command_refuses_options_of_other_methods(
    options: list[str], said: str, pair: list[str], tmp_path: Path
) -> None:
    code, _, err = run(*pair, *options, "--output", tmp_path / "made")
    assert code == 2
    assert said in err
    assert not (tmp_path / "made").exists()

"""`encoder export` with other settings, and how `encoder info` shows what an encoder was given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import peft
import pytest
import torch
from click.testing import CliRunner, Result
from tiny import HEAD_DIMENSIONS, tiny_encoder
from transformers import AutoModel

from ragindex.cli import main
from ragindex.cli.exporting import ATTENTIONS, POOLINGS, STYLES
from ragindex.encoder import PROMPT_STYLES, Encoder, Example, Prompts, Task, torch_forward
from ragindex.encoder.checkpoint import Attention, Pooling

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # from peft, in helpers


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["encoder", *arguments])


def exported(source: Path, target: Path, *options: str) -> dict[str, Any]:
    """What the command prints and `info` shows of the copy, together."""
    result = run("export", str(source), str(target), *options, "--json")
    assert result.exit_code == 0, result.stderr
    info = json.loads(run("info", str(target), "--json").stdout)
    value = json.loads(result.stdout)
    assert value["fingerprint"] == info["fingerprint"]
    return {**info, **value}


def test_the_help_names_what_the_library_knows() -> None:
    assert get_args(Attention) == ATTENTIONS
    assert (*POOLINGS, "modules") == get_args(Pooling)
    assert tuple(PROMPT_STYLES) == STYLES


def test_settings_are_stored_with_the_copy(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    options = [
        *["--dimensions", "16", "--max-tokens", "64", "--pooling", "last", "--attention", "causal"],
        *["--saturation", "4", "--lead", "20"],
        *["--temperature", "0.5", "--prompt-style", "e5-instruct", "--instruction", "Find the rule"],
    ]
    info = exported(tiny_encoder_dir, tmp_path / "copy", *options)
    assert (info["dimensions"], info["max_tokens"], info["matryoshka"]) == (16, 64, [8])
    assert (info["pooling"], info["attention"], info["temperature"]) == ("last", "causal", 0.5)
    assert (info["saturation"], info["lead"]) == (4.0, 20.0)
    assert info["prompts"]["instruction"] == "Find the rule"
    assert info["prompts"]["instructed_query"] == "Instruct: {instruction}\nQuery: {text}"


@pytest.mark.parametrize(("text", "kind"), [("2", "default"), ("ntk:2", "default"), ("linear:2", "linear")])
def test_positions_are_scaled(tiny_encoder_dir: Path, tmp_path: Path, text: str, kind: str) -> None:
    info = exported(tiny_encoder_dir, tmp_path / "copy", "--rope-scaling", text)
    assert info["rope"]["rope_type"] == kind
    assert info["max_tokens"] == 1024
    assert (info["rope"]["rope_theta"] == 10_000) is (kind == "linear")


def test_an_adapter_is_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_forward, "choose_dtype", lambda device: torch.float32)
    base = tiny_encoder(tmp_path / "base")
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(
        AutoModel.from_pretrained(base, dtype=torch.float32),
        peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False),
    )
    wrapped.save_pretrained(str(tmp_path / "adapter"))
    info = exported(base, tmp_path / "copy", "--adapter", str(tmp_path / "adapter"))
    assert info["adapters"] == []
    texts = ["rotate the key every ninety days"]
    both = Encoder.load(base, adapters=[tmp_path / "adapter"], device="cpu").encode_documents(texts)
    alone = Encoder.load(tmp_path / "copy", device="cpu").encode_documents(texts)
    np.testing.assert_allclose(alone, both, atol=1e-5)
    assert not np.allclose(alone, Encoder.load(base, device="cpu").encode_documents(texts), atol=2e-2)


def test_an_instruction_replaces_the_one_that_examples_belong_to(tmp_path: Path) -> None:
    prompts = Prompts(instruction="Find", examples=(Example("q", "a"),))
    source = tiny_encoder(tmp_path / "e", prompts=prompts)
    assert "examples" not in exported(source, tmp_path / "other", "--instruction", "Seek")["prompts"]
    assert "examples" in exported(source, tmp_path / "same", "--instruction", "Find")["prompts"]
    assert exported(source, tmp_path / "none", "--instruction", "")["prompts"]["instruction"] == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dimensions", "0"], "--dimensions"),
        (["--dimensions", str(HEAD_DIMENSIONS + 1)], f"has {HEAD_DIMENSIONS} dimensions"),
        (["--pooling", "cls"], "'cls' is not one of"),
        (["--rope-scaling", "yarn:2"], "'yarn:2' is neither a factor of 1 or more nor ntk:FACTOR"),
        (["--rope-scaling", "0.5"], "'0.5' is neither"),
        (["--rope-scaling", "ntk:"], "'ntk:' is neither"),
        (["--temperature", "0"], "temperature of 0.0 is impossible"),
        (["--saturation", "0"], "saturation of 0.0 is impossible"),
        (["--lead", "-1"], "lead of -1.0 is impossible"),
        (["--adapter", "nowhere"], "There is no encoder 'nowhere'"),
        (["--prompt-style", "mine"], "'mine' is not one of"),
    ],
    ids=str,
)
def test_wrong_settings_leave_no_copy(tiny_encoder_dir: Path, tmp_path: Path, options: list[str], message: str) -> None:
    result = run("export", str(tiny_encoder_dir), str(tmp_path / "copy"), *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "copy").exists()


def test_info_shows_all_that_stands_around_a_text(tmp_path: Path) -> None:
    prompts = Prompts(
        wrapper="<user>{text}<end>",
        instruction="Find",
        examples=(Example("how hot?", "100 degrees"),),
        tasks={"sts": Task("Same", symmetric=True, examples=(Example("a", "b"), Example("c", "d"))), "code": Task("C")},
    )
    directory = tiny_encoder(tmp_path / "e", prompts=prompts)
    shown = [" ".join(line.split()) for line in run("info", str(directory)).stdout.splitlines()]
    for line in (
        "wrapper '<user>{text}<end>'",
        "examples 'how hot?'",
        "sts 'Same', both sides alike, 2 examples",
        "code 'C'",
    ):
        assert line in shown
    value = json.loads(run("info", str(directory), "--json").stdout)
    assert Prompts.from_json(value["prompts"]) == prompts
    assert value["modules"][0] == "Encoder"  # sentence-transformers cannot say the wrapper, and must not try
    assert (value["temperature"], value["trust"], value["adapters"]) == (1.0, 1.0, [])

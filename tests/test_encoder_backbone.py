"""Two-sided attention, shown rather than assumed, on the decoder families that people train encoders from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import tiny_encoder
from transformers import AutoConfig, AutoModel, PreTrainedModel

from ragindex.encoder import backbone
from ragindex.encoder.backbone import check_attention, load_backbone, set_attention
from ragindex.errors import BackboneError

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # large enough for every layer to be felt
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOWED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4}
OWN_NAMES = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}

FAMILIES: dict[str, dict[str, object]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "mistral windowed": {"sliding_window": 4},
    "mistral windowed narrowly": {"sliding_window": 2, "num_hidden_layers": 1},
    "qwen2": {},
    "qwen2 windowed": {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 4},
    "qwen3": {"head_dim": 8},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, **WINDOWED},
    "gemma3_text": {"head_dim": 8, **WINDOWED},
    "phi": {},
    "phi3": {},
    "smollm3": {},
    "olmo2": {},
    "granite": {},
    "cohere": {},
    "gpt2": OWN_NAMES,
    "gpt_neox": {"rotary_pct": 0.5},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.3},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False},
    "stablelm": {},
    "starcoder2": {"sliding_window": None},
    "qwen3_moe": {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    "mixtral": {"num_local_experts": 4, "sliding_window": None},
    "olmo": {},
    "olmo3": {**WINDOWED},
    "cohere2": {**WINDOWED},
    "glm": {"head_dim": 8},
    "glm4": {"head_dim": 8},
    "gptj": {**OWN_NAMES, "rotary_dim": 4},
    "nemotron": {},
    "gpt_oss": {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, **WINDOWED},
}
ONLY_EAGER = frozenset({"gemma2", "gpt_oss", "gptj"})


def build(family: str, backend: str = "eager", **options: object) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family.partition(" ")[0], **{**SIZES, **FAMILIES.get(family, {}), **options})
    model: PreTrainedModel = AutoModel.from_config(config, attn_implementation=backend)
    return model.eval()


def switch_config(model: PreTrainedModel) -> None:
    for module in model.modules():
        if hasattr(module, "config"):
            module.config.is_causal = False


def switch_modules(model: PreTrainedModel) -> None:
    for module in model.modules():
        if isinstance(getattr(module, "is_causal", None), bool):
            module.is_causal = False


@torch.inference_mode()
def reads_the_future(model: PreTrainedModel, *, padded: bool) -> bool:
    """An independent measurement: does the first state move when the last token does?"""
    ids = torch.arange(20, 32).repeat(2, 1)
    ids[1, -1] = 40
    mask = None
    if padded:
        ids = torch.cat([torch.nn.functional.pad(ids, (0, 2)), torch.arange(30, 44)[None]])
        mask = torch.ones_like(ids)
        mask[:2, 12:] = 0
    states = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
    return bool((states[0, 0] - states[1, 0]).abs().max() > 1e-4)


CASES = [
    (family, backend)
    for family in FAMILIES
    for backend in ("sdpa", "eager")
    if backend == "eager" or family not in ONLY_EAGER
]


@pytest.mark.parametrize(("family", "backend"), CASES)
def test_family_is_causal_then_bidirectional_then_causal_again(family: str, backend: str) -> None:
    model = build(family, backend)
    ids = torch.arange(5, 15)[None]
    with torch.inference_mode():
        original = model(input_ids=ids).last_hidden_state
    check_attention(model, "causal")
    with pytest.raises(BackboneError, match=f"{type(model).__name__} stayed causal without padding"):
        check_attention(model, "bidirectional")

    set_attention(model, "bidirectional")
    check_attention(model, "bidirectional")
    if "windowed" not in family:  # a window of 4 does not reach from one end of the probe to the other
        assert reads_the_future(model, padded=False)
        assert reads_the_future(model, padded=True)
    with pytest.raises(BackboneError, match="reads the future in causal mode"):
        check_attention(model, "causal")

    set_attention(model, "causal")
    check_attention(model, "causal")
    with torch.inference_mode():
        assert torch.equal(model(input_ids=ids).last_hidden_state, original)


@pytest.mark.parametrize("family", FAMILIES)
def test_company_and_padding_on_either_side_change_a_state_by_rounding_alone(family: str) -> None:
    """The tolerance that `Encoder` documents, for a text alone, among others, padded left and padded right."""
    model = build(family, "eager" if family in ONLY_EAGER else "sdpa")
    set_attention(model, "bidirectional")
    text, junk = torch.arange(20, 30), torch.full((6,), 63)
    others = torch.arange(30, 46)
    alone = states_of(model, text[None])[0]
    scale = alone.norm(dim=-1).mean()
    for left in (False, True):
        row = torch.cat([junk, text] if left else [text, junk])
        mask = torch.cat([torch.zeros(6), torch.ones(10)] if left else [torch.ones(10), torch.zeros(6)])
        batch = torch.stack([row, others, row, others])
        masks = torch.stack([mask, torch.ones(16), mask, torch.ones(16)]).long()
        # Positions count from the first real token, as they do in an encoder's own batches, which pad on the right.
        positions = (masks.cumsum(-1) - 1).clamp_min(0)
        found = states_of(model, batch, mask=masks, positions=positions)[0]
        deviation = (found[6:] if left else found[:10]) - alone
        assert float(deviation.norm(dim=-1).max() / scale) <= 1e-5


@torch.inference_mode()
def states_of(
    model: PreTrainedModel,
    ids: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Last states; OPT counts its positions from the mask by itself."""
    arguments = {} if positions is None or model.config.model_type == "opt" else {"position_ids": positions}
    states: torch.Tensor = model(input_ids=ids, attention_mask=mask, **arguments).last_hidden_state
    return states


@pytest.mark.parametrize("family", FAMILIES)
def test_self_test_holds_in_bfloat16(family: str) -> None:
    model = build(family, "eager" if family in ONLY_EAGER else "sdpa").bfloat16()
    check_attention(model, "causal")
    set_attention(model, "bidirectional")
    check_attention(model, "bidirectional")


@pytest.mark.parametrize(
    ("family", "backend", "switch", "state"),
    [
        ("llama", "sdpa", switch_modules, "in padded batches"),
        ("qwen2", "sdpa", switch_modules, "in padded batches"),
        ("gpt2", "sdpa", switch_modules, "in padded batches"),
        ("llama", "eager", switch_modules, "without padding"),
        ("mistral windowed", "sdpa", switch_modules, "without padding"),
        ("falcon", "sdpa", switch_modules, "without padding"),
        ("stablelm", "sdpa", switch_config, "without padding"),
        ("nemotron", "sdpa", switch_config, "without padding"),
    ],
)
def test_half_a_switch_is_caught(
    family: str, backend: str, switch: Callable[[PreTrainedModel], None], state: str
) -> None:
    """Either flag alone leaves some models causal, in one kind of batch or in both."""
    model = build(family, backend)
    switch(model)
    assert not reads_the_future(model, padded=state.endswith("batches"))
    with pytest.raises(BackboneError, match=f"stayed causal {state}"):
        check_attention(model, "bidirectional")


def test_a_model_that_ignores_both_switches_is_caught() -> None:
    model = build("gpt_neo", hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global"], 2]])
    set_attention(model, "bidirectional")
    with pytest.raises(BackboneError, match="GPTNeoModel stayed causal"):
        check_attention(model, "bidirectional")


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("bloom", {"n_layer": 2, "n_head": 4}, r"BloomModel has a one-sided position bias \(ALiBi\)"),
        ("mpt", {"d_model": 32, "n_layers": 2, "n_heads": 4}, r"MptModel has a one-sided position bias \(ALiBi\)"),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, "Lfm2Model has conv layers"),
        (
            "qwen3_next",
            {"layer_types": ["linear_attention", "full_attention"], "head_dim": 8, "num_experts": 0},
            "Qwen3NextModel has linear_attention layers",
        ),
        (
            "llama4_text",
            {"layer_types": ["chunked_attention", "full_attention"], "num_local_experts": 2, "head_dim": 8},
            "Llama4TextModel has chunked_attention layers",
        ),
    ],
)
def test_what_no_mask_makes_two_sided_is_refused_by_name(family: str, options: dict[str, object], message: str) -> None:
    model = build(family, **options)
    with pytest.raises(BackboneError, match=message):
        set_attention(model, "bidirectional")
    set_attention(model, "causal")
    check_attention(model, "causal")


def test_a_model_without_attention_is_refused() -> None:
    model = build("rwkv", attention_hidden_size=32, context_length=64)
    set_attention(model, "bidirectional")
    with pytest.raises(BackboneError, match="RwkvModel stayed causal"):
        check_attention(model, "bidirectional")


def test_falcon_with_alibi_is_refused() -> None:
    with pytest.raises(BackboneError, match="one-sided position bias"):
        set_attention(build("falcon", alibi=True), "bidirectional")


def test_a_static_model_has_no_direction_and_passes() -> None:
    model = build("llama")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
    for attention in ("causal", "bidirectional"):
        set_attention(model, attention)
        check_attention(model, attention)


def test_self_test_leaves_the_model_as_it_was() -> None:
    model = build("llama", attention_dropout=0.5)
    for training in (True, False):
        model.train(training)
        set_attention(model, "bidirectional")
        check_attention(model, "bidirectional")
        assert model.training is training
        set_attention(model, "causal")
        check_attention(model, "causal")  # dropout would move every state, the first one's too
    assert all(parameter.grad is None for parameter in model.parameters())


def test_loading_switches_and_tests(tmp_path: Path) -> None:
    directory = tiny_encoder(tmp_path / "e")
    for attention in ("bidirectional", "causal"):
        model = load_backbone(directory, attention=attention, device=torch.device("cpu"), dtype=torch.float32)
        assert not model.training
        assert reads_the_future(model, padded=True) is (attention == "bidirectional")
        check_attention(model, attention)


@pytest.mark.parametrize(
    ("attention", "broken", "message"),
    [
        ("bidirectional", lambda model, attention: None, "LlamaModel stayed causal without padding"),
        ("bidirectional", lambda model, attention: switch_modules(model), "LlamaModel stayed causal in padded batches"),
        ("causal", lambda model, attention: set_attention(model, "bidirectional"), "reads the future in causal mode"),
    ],
)
def test_no_model_is_served_untested(
    attention: str,
    broken: Callable[[PreTrainedModel, str], None],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Were the switches to fail one day, with another transformers or another architecture, loading would too."""
    build("llama").save_pretrained(tmp_path)
    monkeypatch.setattr(backbone, "set_attention", broken)
    with pytest.raises(BackboneError, match=message):
        load_backbone(tmp_path, attention=attention, device=torch.device("cpu"), dtype=torch.float32)


def test_a_model_brings_no_code_and_asks_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published LLM2Vec models name modelling code of their own in config.json; it is never run."""
    build("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    classes = {"AutoConfig": "own.LlamaConfig", "AutoModel": "own.LlamaModel"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": classes}), encoding="utf-8")
    (tmp_path / "own.py").write_text("raise SystemExit('ran')\n", encoding="utf-8")
    asked: list[dict[str, object]] = []
    for kind in (backbone.AutoConfig, backbone.AutoModel):
        monkeypatch.setattr(kind, "from_pretrained", remembering(kind.from_pretrained, asked))
    load_backbone(tmp_path, attention="bidirectional", device=torch.device("cpu"), dtype=torch.float32)
    assert len(asked) == 2
    assert all(options["trust_remote_code"] is False and options["local_files_only"] is True for options in asked)


def remembering(function: Callable[..., object], asked: list[dict[str, object]]) -> Callable[..., object]:
    def call(*arguments: object, **options: object) -> object:
        asked.append(options)
        return function(*arguments, **options)

    return call


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    build("llama").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(BackboneError, match=r"cannot be loaded: .*model\.safetensors"):
        load_backbone(tmp_path, attention="bidirectional", device=torch.device("cpu"), dtype=torch.float32)

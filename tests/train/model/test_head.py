"""The loss through a head that is trained is the model's own, and one that is tied has one adapter."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig

from support.models import save_base
from support.rows import write_rows
from tunebuild.spec.tuning import LoraSpec, TuningSpec
from tunebuild.store import Silent
from tunebuild.train.loop.run import train_adapter
from tunebuild.train.model import head as head_module
from tunebuild.train.model.adapter import add_adapter, save_adapter
from tunebuild.train.model.head import call_head, trains_head
from tunebuild.train.plan.settings import TrainSettings

SIZE = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
    "intermediate_size": 64, "vocab_size": 96, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "initializer_range": 0.3,
}  # fmt: skip
MODELS = {
    "plain": LlamaConfig(**SIZE),
    "soft-capped": Gemma2Config(**SIZE, head_dim=16, final_logit_softcapping=2.0),
    "multiplied": CohereConfig(**SIZE, logit_scale=0.25),
    "divided": GraniteConfig(**SIZE, logits_scaling=4.0),
    "tied": LlamaConfig(**SIZE, tie_word_embeddings=True),
}


def adapted(name, tmp_path, **lora):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MODELS[name], attn_implementation="eager")
    spec = TuningSpec(method="lora", lora=LoraSpec(r=4, targets=("q_proj", "lm_head"), **lora))
    model = add_adapter(model, spec, base=tmp_path)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def gradients(model):
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize(
    ("name", "dora"),
    [
        *((name, False) for name in MODELS),
        *((n, True) for n, c in MODELS.items() if not c.tie_word_embeddings),
    ],
)
def test_loss_and_gradients_are_the_models_own(name, dora, tmp_path, monkeypatch):
    monkeypatch.setattr(head_module, "HEAD_TILE", 5 * 96)  # several tiles, the last one not full
    model = adapted(name, tmp_path, dora=dora)
    assert trains_head(model)
    ids = torch.randint(3, 96, (2, 12), generator=torch.Generator().manual_seed(1))
    labels = ids.masked_fill(torch.arange(12) < 3, -100)
    logits = model(input_ids=ids).logits[:, :-1]
    wanted = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="none").view(2, 11)
    wanted.sum().backward()
    expected = gradients(model)
    call_head(model.get_base_model())
    found = model(input_ids=ids, labels=labels, fused_lm_head=True)
    torch.testing.assert_close(-found.log_probs, wanted)
    mask = labels[:, 1:] != -100
    assert torch.equal(found.is_top1, (logits.argmax(-1) == labels[:, 1:]) & mask)
    entropy = torch.distributions.Categorical(logits=logits).entropy() * mask
    torch.testing.assert_close(found.entropy, entropy)
    (-found.log_probs.sum()).backward()
    torch.testing.assert_close(gradients(model), expected, rtol=1e-3, atol=1e-3)
    assert any("lora" in n and ("lm_head" in n or "embed" in n) for n in expected)


def test_a_micro_batch_without_labels_has_a_loss_of_zero(tmp_path):
    model = adapted("plain", tmp_path)
    call_head(model.get_base_model())
    ids = torch.arange(3, 9)[None]
    loss = model(input_ids=ids, labels=torch.full_like(ids, -100), fused_lm_head=True).log_probs.sum()
    loss.backward()
    assert loss == 0


def test_a_tied_adapter_is_one_and_is_written_as_peft_writes_it(tmp_path):
    model = adapted("tied", tmp_path)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    a, b = embedding.lora_embedding_A["default"], embedding.lora_embedding_B["default"]
    assert not [n for n, _ in model.named_parameters() if "lm_head" in n and "lora" in n]
    a.data = torch.randn_like(a)  # as restoring an adapter does
    assert torch.equal(head.lora_B["default"].weight, a.T)
    save_adapter(model, tmp_path / "adapter")
    written = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert torch.equal(written["base_model.model.lm_head.lora_A.weight"], b.T)
    assert torch.equal(written["base_model.model.lm_head.lora_B.weight"], a.T)
    assert not [n for n in written if "base_layer" in n]


@pytest.mark.parametrize(
    ("targets", "new_tokens"),
    [(("q_proj", "embed_tokens"), ()), ("all-linear", (7, 20))],
    ids=["lora", "rows"],
)
def test_a_killed_training_of_the_ends_resumes_to_the_same_bytes(tmp_path, targets, new_tokens):
    """Checkpoints hold a tied adapter once, and give it back to both ends."""
    base = save_base("llama", tmp_path / "base", tie_word_embeddings=True)
    write_rows(base, tmp_path / "rows", held_out=True)
    lora = LoraSpec(r=4, targets=targets)
    spec = TuningSpec(method="lora", lora=lora, epochs=2, batch_size=5, learning_rate=1e-2, max_length=128)
    settings = TrainSettings(spec, "cpu", "float32", new_tokens=new_tokens)
    outs = []
    for name in ("whole", "resumed"):
        out, work = tmp_path / name, tmp_path / "work"
        out.mkdir()
        work.mkdir(exist_ok=True)  # the second one finds the checkpoints of the first
        train_adapter(settings, data=tmp_path / "rows", base=base, work=work, out=out, progress=Silent())
        assert json.loads((out / "result.json").read_text())["resumed"] == (name == "resumed")
        for checkpoint in sorted((work / "checkpoints").glob("checkpoint-*"))[1:]:
            for file in checkpoint.iterdir():
                file.unlink()
            checkpoint.rmdir()
        outs.append((out / "adapter" / "adapter_model.safetensors").read_bytes())
    assert outs[0] == outs[1]

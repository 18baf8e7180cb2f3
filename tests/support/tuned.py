"""A bundle with a fine-tuned model and what its build measured, as an image would have it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from support.endpoint import make_bundle
from tunebuild.evaluate.parity import choose_parity
from tunebuild.evaluate.texts import Question
from tunebuild.prompt import Renderer
from tunebuild.serve.bundle import ADAPTER_FILES, PARITY_FILE, Bundle, adapter_digest, digest_of_file


def scores(model, rows):
    with torch.inference_mode():
        return torch.cat([model(torch.tensor([r["input_ids"]])).logits[0, :-1].log_softmax(-1) for r in rows])


def answer(model, prompt, length, stops):
    made = list(prompt)
    with torch.inference_mode():
        for _ in range(length):
            token = int(model(torch.tensor([made])).logits[0, -1].argmax())
            if token in stops:
                break
            made.append(token)
    return made[len(prompt) :]


def make_adapter(base: Path, directory: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(directory)
    return directory


def seal(bundle: Path, **changes: object) -> None:
    """Have the settings say that the files beside them are theirs."""
    settings = json.loads((bundle / "bundle.json").read_text())
    if (bundle / "adapter").is_dir():
        digests = {name: digest_of_file(bundle / "adapter" / name) for name in ADAPTER_FILES}
        settings |= {"adapter": True, "adapter_digest": adapter_digest(digests)}
    settings |= {"parity_digest": digest_of_file(bundle / PARITY_FILE), **changes}
    Bundle.model_validate(settings).save(bundle)


def make_tuned(bundle: Path, *, merged: bool) -> Renderer:
    """Write a bundle whose fine-tuning is in the weights, or an adapter beside them. ``base`` beside it is
    the model without."""
    bundle.mkdir()
    renderer = make_bundle(bundle, head_dim=32, drain_seconds=90)
    base = AutoModelForCausalLM.from_pretrained(bundle / "model", dtype=torch.float32)
    adapter = make_adapter(bundle / "model", bundle / "adapter", 1)
    tuned = load_tuned(bundle)
    torch.manual_seed(5)
    rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(20, 300, (4, 24)).tolist()]
    prompts = [row["input_ids"][:6] for row in rows]
    answers = [answer(tuned, prompt, 24, renderer.stop_ids) for prompt in prompts]
    questions = [Question(prompt, [], 0) for prompt in prompts]
    choose_parity("float32", rows, scores(tuned, rows), scores(base, rows), questions, answers, 24).save(
        bundle / PARITY_FILE
    )
    if merged:
        tuned.merge_and_unload().save_pretrained(bundle / "model")
        shutil.rmtree(adapter)
    shutil.copytree(bundle / "model", bundle.parent / "base")
    base.save_pretrained(bundle.parent / "base")
    seal(bundle)
    return renderer


def load_tuned(bundle: Path) -> torch.nn.Module:
    """The base with its adapter on top, where it is not merged, for comparison."""
    base = AutoModelForCausalLM.from_pretrained(bundle / "model", dtype=torch.float32)
    if not (bundle / "adapter").is_dir():
        return base.eval()
    return PeftModel.from_pretrained(base, bundle / "adapter").eval()


def perturb(file: Path, scale: float) -> None:
    """Change weights a little, or with a scale of 0 set them to nothing."""
    torch.manual_seed(9)
    tensors = load_file(file)
    changed = {
        n: t + scale * torch.randn_like(t) if scale else torch.zeros_like(t) for n, t in tensors.items()
    }
    save_file(changed, file, {"format": "pt"})

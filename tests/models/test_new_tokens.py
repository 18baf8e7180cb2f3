"""New control tokens are rows of embedding and head: trained, merged and proven, and no other row moves."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from support.models import save_base
from tunebuild.errors import TunebuildError
from tunebuild.evaluate.models import load_trained
from tunebuild.merge.proof.run import prove
from tunebuild.merge.proof.served import prove_served
from tunebuild.merge.run import merge_adapter
from tunebuild.models.base_model import find_base_model
from tunebuild.models.new_tokens import NewTokensStage
from tunebuild.models.safetensors_header import read_header
from tunebuild.preflight.architecture import check_architecture
from tunebuild.prompt import PromptTokenizer
from tunebuild.serve.engines.model import load_model
from tunebuild.spec.model import ModelSpec
from tunebuild.spec.tuning import LoraSpec, TuningSpec
from tunebuild.store import Silent, digest_file, scan
from tunebuild.train.model.adapter import add_adapter, save_adapter
from tunebuild.train.model.base import describe_quantization, load_base
from tunebuild.train.plan.settings import TrainSettings

TOKENS = ("<|tool|>", "<|end_tool|>")


def extend(root, tokens=TOKENS):
    base = find_base_model(ModelSpec(base="./base"), root, root / "cache", digest_file)
    out = root / "with-tokens"
    out.mkdir()
    NewTokensStage(base, tokens).run(root, out, Silent())
    return out


def tensors(directory):
    return {k: v for file in directory.glob("*.safetensors") for k, v in load_file(file).items()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("count", [2, 100], ids=["spare", "more"])
def test_rows_are_the_mean_of_the_others_which_stay_as_they_are(tmp_path, dtype, count):
    base = save_base("mistral", tmp_path / "base", dtype=dtype, shard="50KB")
    spellings = tuple(f"<|{number}|>" for number in range(count))
    out = extend(tmp_path, spellings)
    before, after = tensors(base), tensors(out)
    tokenizer = PromptTokenizer((out / "tokenizer.json").read_text())
    old = PromptTokenizer((base / "tokenizer.json").read_text()).vocabulary_size
    ids = [tokenizer.token_id(spelling) for spelling in spellings]
    assert ids == list(range(old, old + count))
    assert tokenizer.control_ids.issuperset(ids)
    rows = json.loads((base / "config.json").read_text())["vocab_size"]
    grown = max(rows, old + count)
    assert (grown > rows) == (count == 100)
    assert json.loads((out / "config.json").read_text())["vocab_size"] == grown
    for name, value in before.items():
        if name not in ("model.embed_tokens.weight", "lm_head.weight"):
            assert torch.equal(after[name], value)
            continue
        assert after[name].shape == (grown, 64)
        assert torch.equal(after[name][:old], value[:old])
        mean = value[:old].double().mean(0).to(dtype)
        assert torch.equal(after[name][old : old + count], mean.expand(count, -1))
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in after.values())
    load_model(out, None, dtype)
    assert AutoTokenizer.from_pretrained(out).convert_tokens_to_ids(list(spellings)) == ids


@pytest.mark.parametrize("count", [2, 100], ids=["spare", "more"])
def test_an_outline_is_the_base_without_its_numbers(tmp_path, count):
    save_base("mistral", tmp_path / "base", dtype=torch.bfloat16, shard="50KB")
    spellings = tuple(f"<|{number}|>" for number in range(count))
    written = scan(extend(tmp_path, spellings))
    base = find_base_model(ModelSpec(base="./base"), tmp_path, tmp_path / "cache", digest_file)

    def outline(name, tokens):
        (tmp_path / name).mkdir()
        return NewTokensStage(base, tokens).outline(tmp_path / name)

    one, other = outline("one", spellings), outline("other", (*spellings, "<|more|>"))
    assert [(f.path, f.size) for f in one.files] == [(f.path, f.size) for f in written.files]
    for found, real, of_others in zip(one.files, written.files, other.files, strict=True):
        if not found.path.endswith(".safetensors"):
            assert found.digest == real.digest
            continue
        assert read_header(one.directory / found.path) == read_header(written.root / real.path)
        assert found.digest not in (real.digest, of_others.digest)
        stored = (one.directory / found.path).read_bytes()
        assert not any(stored[8 + int.from_bytes(stored[:8], "little") :])


def test_a_token_of_the_base_is_refused(tmp_path):
    save_base("llama", tmp_path / "base")
    with pytest.raises(TunebuildError, match=r"prompt.new_tokens\[1\].*is a token of the base already"):
        extend(tmp_path, ("<|new|>", "<|im_end|>"))


def save(architecture, directory, **changes):
    if architecture != "gpt2":
        return save_base(architecture, directory, dtype=torch.bfloat16, **changes)
    save_base("llama", directory)  # for its tokenizer
    size = json.loads((directory / "config.json").read_text())["vocab_size"]
    config = GPT2Config(vocab_size=size, n_embd=64, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
    GPT2LMHeadModel(config).to(torch.bfloat16).save_pretrained(directory)
    return directory


@pytest.mark.parametrize(
    ("architecture", "method"),
    [
        ("llama", "lora"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("llama", "qlora"),
                ("mistral", "qlora"),
                ("falcon", "lora"),
                ("gemma", "lora"),
                ("gpt2", "lora"),
            )
        ),
    ],
)
def test_merged_rows_are_the_trained_ones(tmp_path, architecture, method):
    save(architecture, tmp_path / "base")
    base = extend(tmp_path)
    tokenizer = PromptTokenizer((base / "tokenizer.json").read_text())
    ids = tuple(tokenizer.token_id(token) for token in TOKENS)
    tuning = TuningSpec(method=method, lora=LoraSpec(r=4))
    check_architecture(base, tuning, merges=True, new_tokens=ids)
    settings = TrainSettings(tuning, "cpu", "float32", new_tokens=ids)
    model = load_base(base, settings)
    record = describe_quantization(model, settings)
    trained, out = tmp_path / "trained", tmp_path / "out"
    out.mkdir()
    adapted = add_adapter(model, tuning, base=base, new_tokens=ids)
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad and "lora_A" not in name:
            torch.nn.init.normal_(parameter, std=0.1)
    save_adapter(adapted, trained / "adapter")
    if record:
        (trained / "quantization.json").write_text(json.dumps(record.to_json()))
    strategy = "dequantized" if record else "original"
    merge_adapter(strategy, base=base, trained=trained, out=out, progress=Silent())
    proof = prove(strategy, base=base, trained=trained, merged=out / "model", progress=Silent())
    before, after = tensors(base), tensors(out / "model")
    changed = {n for n, t in before.items() if not torch.equal(t, after[n])}
    assert proof.rows == len([name for name in changed if not re.search(r"\.\d+\.", name)])
    assert proof.rows == (2 if architecture == "mistral" else 1)
    prompt = torch.arange(10, 60)[None].clone()
    prompt[0, 7], prompt[0, 20] = ids
    with torch.inference_mode():
        expected = load_trained(base, trained / "adapter", settings)(input_ids=prompt).logits
        found = load_model(out / "model", None, torch.float32)(input_ids=prompt).logits
        assert (found - expected).norm() / expected.norm() < 0.02
        served = load_model(base, trained / "adapter", torch.float32)
        prove_served(served, base=base, adapter=trained / "adapter")
        if method == "lora":
            torch.testing.assert_close(served(input_ids=prompt).logits, expected)


def test_an_adapter_of_the_head_beside_new_rows_is_refused(tmp_path):
    base = save_base("llama", tmp_path / "base")
    tuning = TuningSpec(method="lora", lora=LoraSpec(targets=("q_proj", "embed_tokens")))
    with pytest.raises(TunebuildError, match="leave it out of the targets"):
        check_architecture(base, tuning, merges=True, new_tokens=(5,))

"""What a base has no positions for is refused before training; what nobody asked for is cut, and said."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from support.models import save_base
from tunebuild.build.pipeline import Pipeline
from tunebuild.cli import app
from tunebuild.models.positions import positions_of
from tunebuild.spec import load_spec
from tunebuild.spec.canonical import canonical_yaml
from tunebuild.store import Store

MAX, ORIGINAL = "max_position_embeddings", "original_max_position_embeddings"


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({}, None),
        ({MAX: 4096}, 4096),
        ({"text_config": {MAX: 4096}, MAX: 1}, 4096),
        ({MAX: 2048, "alibi": True}, None),
        ({MAX: 2048, "alibi": False}, 2048),
        ({MAX: 2048, "model_type": "jamba"}, None),
        ({MAX: 2048, "rope_scaling": None}, 2048),
        # Named before it is extended, and after.
        ({MAX: 4096, "rope_scaling": {"type": "linear", "factor": 4.0}}, 16384),
        ({MAX: 32768, "rope_scaling": {"type": "yarn", "factor": 4.0, ORIGINAL: 32768}}, 131072),
        ({MAX: 131072, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, ORIGINAL: 32768}}, 131072),
        ({MAX: 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, ORIGINAL: 8192}}, 131072),
        ({MAX: 131072, ORIGINAL: 4096, "rope_scaling": {"type": "longrope", "long_factor": [1.0]}}, 131072),
        ({MAX: 256, "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}, 256),
        (
            {MAX: 100, "rope_parameters": {"full": {"rope_type": "linear", "factor": 8.0}, "sliding": {}}},
            800,
        ),
    ],
)
def test_a_configuration_names_the_longest_sequence(config, positions):
    assert positions_of(config) == positions


# Recurrent, or with positions that are relative to one another: longer sequences are no nonsense to them.
ENDLESS = {"jamba", "rwkv", "xlnet"}


def test_every_configuration_of_transformers_is_read_as_it_reads_it():
    """It calls the length by one name and maps others to that, class by class."""
    read = {}
    for name in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        try:
            config = AutoConfig.for_model(name)
        except StrictDataclassFieldValidationError:
            continue  # made of other models, which have no default
        positions = getattr(config.get_text_config(), MAX, None)
        read[name] = (
            None if name in ENDLESS else positions,
            positions_of(json.loads(config.to_json_string())),
        )
    other_names = {"gpt2": 1024, "gptj": 2048, "codegen": 2048, "dbrx": 2048}
    assert {name: read[name] for name in other_names} == {n: (most, most) for n, most in other_names.items()}
    # MPT maps nothing, but its biases end there.
    assert read.pop("mpt") == (None, 2048)
    assert {name: pair for name, pair in read.items() if pair[0] != pair[1]} == {}


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    directory = tmp_path_factory.mktemp("positions")
    save_base("llama", directory / "base")  # 256 positions
    rows = [{"question": f"Why {i}?", "answer": "So."} for i in range(8)]
    (directory / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows.insert(3, {"question": "word " * 300, "answer": "So."})
    (directory / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = directory / "spec.yaml"
    file.write_text(
        "apiVersion: tunebuild/v1\nname: x\nmodel: {base: ./base}\nprompt: {template: chatml}\n"
        "data: {train: [{path: rows.jsonl}]}\n"
    )
    return file


def run(verb, spec, *arguments):
    store = ["--store", str(spec.parent / "store")]
    done = CliRunner().invoke(app, [verb, str(spec), *store, *arguments], standalone_mode=False)
    return done.stdout, str(done.exception or "")


def test_a_context_that_nobody_named_is_cut_and_said_and_recorded(spec):
    out, _ = run("plan", spec)
    assert "\n          context of 256 tokens; the base has positions for 256\n" in out
    out, _ = run("plan", spec, "--json")
    serving = json.loads(out)["serving"]
    assert (serving["engine"], serving["device"]) == ("transformers", "cpu")
    assert (serving["context"], serving["positions"]) == (256, 256)
    assert "context of 256 tokens; the base has" in run("plan", spec, "--markdown")[0]
    loaded = load_spec(spec)
    assert Pipeline(loaded, Store(spec.parent / "store")).settings.limits.context == 256
    # The effective spec says the same when it is built again, on whatever base.
    assert "context: 256" not in canonical_yaml(loaded.spec)


@pytest.mark.parametrize("verb", ["plan", "build"])
def test_a_context_beyond_the_positions_is_refused(spec, verb):
    _, error = run(verb, spec, "--set", "serving.limits.context=1024")
    assert "serving.limits.context" in error
    assert "the base has positions for 256 tokens, not for a context of 1024" in error
    fits = ["--set", "serving.limits.context=100"]  # a default answer is cut to what fits
    assert "context of 100 tokens" in run("plan", spec, *fits)[0]


@pytest.mark.parametrize("where", ["data.train[0].path=long.jsonl", "data.eval.files=[{path: long.jsonl}]"])
@pytest.mark.parametrize("verb", ["plan", "build"])
def test_a_row_beyond_the_positions_is_refused(spec, verb, where):
    leaks = ["--set", "data.eval.on_leak=drop"] if "eval" in where else []
    extra = ["--set", where, *leaks]
    if leaks:
        extra += ["--set", "data.train[0].path=other.jsonl"]
        (spec.parent / "other.jsonl").write_text('{"question": "Who?", "answer": "We."}\n')
    _, error = run(verb, spec, *extra)
    assert "tuning.max_length" in error
    assert "long.jsonl:4 has " in error
    assert "and the base has positions for 256" in error
    out, error = run("plan", spec, *extra, "--set", "tuning.max_length=256", "--set", "data.on_long=drop")
    assert "1 rejected: too-long" in out


def test_tokens_that_an_adapter_puts_first_take_positions(spec):
    peft = ["--set", "tuning.method=peft", "--set", "tuning.peft={type: prompt_tuning, virtual_tokens: 6}"]
    assert "context of 250 tokens; the base has positions for 250" in run("plan", spec, *peft)[0]

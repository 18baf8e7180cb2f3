"""What an export is made of, without the tool: rows, layers, chat templates, and what a spec may ask for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from support.models import ALL_ARCHITECTURES, save_base
from support.rows import write_rows
from support.tokenizers import FAMILIES, save
from tunebuild import resources
from tunebuild.data.prompt_source import build_renderer
from tunebuild.errors import TunebuildError
from tunebuild.export.chat_template import FILE_NAME, write_tokenizer
from tunebuild.export.layers import check_layers
from tunebuild.export.run import calibration_rows
from tunebuild.export.stage import ExportStage
from tunebuild.export.tool import Tool, requirements
from tunebuild.prompt import save_prompt
from tunebuild.prompt.golden import load_golden
from tunebuild.spec import Spec
from tunebuild.spec.checks import broken_rules
from tunebuild.spec.exports import ExportSpec
from tunebuild.spec.folder import Folder
from tunebuild.spec.model import PromptSpec
from tunebuild.store import Tree
from tunebuild.store.stage import key_of
from tunebuild.train.loop.rows import load_rows


def test_rows_to_calibrate_on_are_token_ids_that_were_trained_on(tmp_path: Path) -> None:
    write_rows(save_base("llama", tmp_path / "base"), tmp_path / "rows")
    path = tmp_path / "rows" / "train.arrow"
    trained = load_rows(path)["input_ids"]
    assert calibration_rows(path, 100, 0) == list(trained)
    few = calibration_rows(path, 4, 0)
    assert few == calibration_rows(path, 4, 0)
    places = [list(trained).index(row) for row in few]
    assert places == sorted(set(places))
    assert any(calibration_rows(path, 4, seed) != few for seed in range(1, 5))


@pytest.mark.parametrize("architecture", sorted({*ALL_ARCHITECTURES} - {"falcon"}))
def test_groups_divide_every_layer(tmp_path: Path, architecture: str) -> None:
    base = save_base(architecture, tmp_path / "base")
    check_layers(base, 32, "exports[0]")
    with pytest.raises(
        TunebuildError, match=r"exports\[0\]\.group_size: \S+ has 64 inputs, which is no multiple of 128"
    ):
        check_layers(base, 128, "exports[0]")


def test_a_base_whose_linear_layers_are_of_a_kind_of_their_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TunebuildError, match=r"exports\[0\]: \S+ is of the type FalconLinear"):
        check_layers(save_base("falcon", tmp_path / "base"), 32, "exports[0]")


def test_a_base_without_linear_layers_is_refused(tmp_path: Path) -> None:
    """GPT-2's are Conv1D."""
    config = GPT2Config(n_embd=64, n_layer=1, n_head=2, vocab_size=64, n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(TunebuildError, match="no linear layer that could be exported"):
        check_layers(tmp_path, 32, "exports[0]")


SYSTEM = 'Say "{{ no }}" to {% raw %} braces,\n\\n and \u4f60\u597d \U0001f9ed.'


@pytest.mark.parametrize("system", [None, SYSTEM])
@pytest.mark.parametrize("template", ["base", *resources.shipped_templates()])
@pytest.mark.parametrize("family", ["byte-level", "sentence-piece-first"])
def test_a_chat_template_is_written_only_where_it_gives_the_trained_prompts(
    tmp_path: Path, family: str, template: str, system: str | None
) -> None:
    base = save(FAMILIES[family](), tmp_path / "base")
    (base / "config.json").write_text("{}")
    renderer = build_renderer(PromptSpec(template=template, system=system), base, base)
    save_prompt(tmp_path / "prompt", renderer, base)
    (tmp_path / "out").mkdir()
    found = write_tokenizer(tmp_path / "prompt", tmp_path / "out")
    assert found.differs is None, found
    assert found.reproduced + found.typed == len(load_golden(tmp_path / "prompt" / "golden.json"))
    assert (tmp_path / "out" / FILE_NAME).is_file()


@pytest.mark.parametrize("value", [True, False, 0, 1.5, "", 'a "quote"\n'])
@pytest.mark.parametrize("system", [None, SYSTEM])
def test_a_chat_template_has_the_variables_of_the_spec(
    tmp_path: Path, value: bool | float | str, system: str | None
) -> None:
    base = save(FAMILIES["byte-level"](), tmp_path / "base")
    (base / "config.json").write_text("{}")
    source = "\n  {{ mode }}{{ mode is boolean }}" + (base / "chat_template.jinja").read_text()
    (tmp_path / "moded.jinja").write_text(source)
    prompt = PromptSpec.model_validate(
        {"template": {"file": "moded.jinja"}, "variables": {"mode": value}, "system": system}
    )
    save_prompt(tmp_path / "prompt", build_renderer(prompt, base, tmp_path), base)
    (tmp_path / "out").mkdir()
    found = write_tokenizer(tmp_path / "prompt", tmp_path / "out")
    assert found.differs is None
    assert found.reproduced > 5


def test_a_template_that_prints_another_date_is_left_out(tmp_path: Path) -> None:
    """A pinned date is the contract's; transformers prints today's."""
    base = save(FAMILIES["byte-level"](), tmp_path / "base")
    (base / "config.json").write_text("{}")
    source = "{{ strftime_now('%d %b %Y') }} " + (base / "chat_template.jinja").read_text()
    (tmp_path / "dated.jinja").write_text(source)
    prompt = PromptSpec.model_validate({"template": {"file": "dated.jinja"}, "date": "2001-01-31"})
    save_prompt(tmp_path / "prompt", build_renderer(prompt, base, tmp_path), base)
    (tmp_path / "out").mkdir()
    assert write_tokenizer(tmp_path / "prompt", tmp_path / "out").differs == "one-turn"
    assert not (tmp_path / "out" / FILE_NAME).exists()


def test_the_bases_own_template_is_never_taken(tmp_path: Path) -> None:
    base = save(FAMILIES["byte-level"](), tmp_path / "base")
    (base / "config.json").write_text("{}")
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "{{ 'other' }}"}))
    save_prompt(tmp_path / "prompt", build_renderer(PromptSpec(template="qwen"), base, base), base)
    (tmp_path / "out").mkdir()
    write_tokenizer(tmp_path / "prompt", tmp_path / "out")
    assert "chat_template" not in json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"merge": {"strategy": "none"}}, "exports[0]: an adapter that stays beside"),
        ({"tuning": {"method": "peft", "peft": {"type": "ia3"}}}, "exports[0]: an adapter that stays beside"),
        (
            {"exports": [{"format": "gptq"}, {"format": "awq"}, {"format": "gptq", "samples": 9}]},
            "exports[2]: there is another gptq-w4a16-g128",
        ),
        (
            {"exports": [{"format": "gptq", "gates": {"eval_loss": {"max": 2}}}]},
            "exports[0].gates.eval_loss: needs rows",
        ),
    ],
)
def test_what_a_spec_may_ask_for(tmp_path: Path, changes: dict[str, object], said: str | None) -> None:
    spec = {
        "apiVersion": "tunebuild/v1",
        "name": "x",
        "data": {"train": [{"path": "a.jsonl"}]},
        "model": {"base": "org/model"},
        "exports": [{"format": "gptq"}],
        **changes,
    }
    (tmp_path / "a.jsonl").touch()
    problems = [str(found) for found in broken_rules(Spec.model_validate(spec), Folder(tmp_path))]
    assert (len(problems) == 1 and problems[0].startswith(said)) if said else problems == []


def test_the_requirements_ship_and_pin() -> None:
    lines = [line for line in requirements().read_text().splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 for line in lines)
    assert {"llmcompressor", "torch", "transformers"} <= {line.partition("==")[0] for line in lines}


def test_another_version_of_the_tool_exports_anew_and_another_place_of_it_does_not():
    def key(python, version):
        tool = Tool(Path(python), {"llmcompressor": version})
        nothing = Tree(Path(), ())
        return key_of(ExportStage(ExportSpec(format="gptq"), nothing, nothing, 0, "cpu", tool))

    assert key("/a/python", "1") == key("/b/python", "1") != key("/a/python", "2")

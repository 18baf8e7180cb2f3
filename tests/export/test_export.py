"""Exports by the real llm-compressor: what is written is the trained model, and what is not is refused."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from support.exporter import need_exporter
from support.models import save_base
from support.quickstart import tunebuild
from support.rows import PAIRS
from tunebuild.build.export import export
from tunebuild.build.pipeline import Pipeline
from tunebuild.build.run import measured
from tunebuild.errors import TunebuildError
from tunebuild.evaluate.exported import read_exported
from tunebuild.evaluate.metrics import REFUSED, check_export_gates
from tunebuild.export.run import quantize
from tunebuild.export.stage import ExportStage
from tunebuild.export.tool import Tool, find_tool
from tunebuild.report.facts import Records
from tunebuild.spec import load_spec
from tunebuild.store import Silent, Store, Tree, differences, inputs_of, key_of, scan

#: Small models of random weights lose more in 4 bits than real ones.
SPEC = """\
apiVersion: tunebuild/v1
name: items
data:
  train: [{path: rows.jsonl, format: qa}]
  eval: {files: [{path: held_out.jsonl, format: qa}]}
model: {base: ./base}
prompt: {template: chatml, system: You know "all" items.}
tuning:
  method: lora
  lora: {r: 16}
  epochs: 60
  batch_size: 5
  learning_rate: 1e-2
  compute_dtype: float32
evaluation: {samples: 0}
serving: {defaults: {max_tokens: 32, temperature: 0.5}}
exports:
  - {format: gptq, bits: 4, group_size: 32, samples: 8, gates: {kl: {max: 0.5}, lost: {max: 0.3}}}
  - {format: awq, bits: 4, group_size: 32, samples: 8, gates: {kl: {max: 0.5}, lost: {max: 0.3}}}
"""


@dataclass
class Heard:
    """Progress that remembers which stages ran and what was said."""

    ran: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __call__(self, stage: str) -> Heard._One:
        return Heard._One(self, stage)

    @dataclass
    class _One:
        heard: Heard
        stage: str

        def step(self, done: float, total: float, note: str = "") -> None:
            assert 0 <= done <= total

        def say(self, text: str) -> None:
            if text == "unchanged":
                return
            self.heard.ran.append(self.stage)
            self.heard.said.append(text)


@dataclass(frozen=True)
class Work:
    """A trained spec and its exports."""

    spec: Path
    store: Store
    tool: Tool
    folders: tuple[Path, ...]
    records: Records

    def pipeline(self, *overrides: str) -> Pipeline:
        return Pipeline(load_spec(self.spec, overrides), self.store)

    def export(self, out: Path, *overrides: str) -> Heard:
        heard = Heard()
        export(self.pipeline(*overrides), heard, self.tool.python, out)
        return heard


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    tool, root = need_exporter(), tmp_path_factory.mktemp("exports")
    save_base("llama", root / "base")
    for name, pairs in (("rows", PAIRS), ("held_out", PAIRS[:3])):
        lines = (json.dumps({"question": q if name == "rows" else f"So: {q}", "answer": a}) for q, a in pairs)
        (root / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (root / "spec.yaml").write_text(SPEC)
    store, heard = Store(root / "store"), Heard()
    pipeline = Pipeline(load_spec(root / "spec.yaml"), store)
    folders = export(pipeline, heard, tool.python, root / "out")
    assert "gptq-w4a16-g32: 14 of 14 linear layers quantized, calibrated on 8 rows" in heard.said
    return Work(root / "spec.yaml", store, tool, folders, measured(pipeline, Heard()))


def said(model: object, prompt: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([prompt])).logits[0].log_softmax(-1)  # type: ignore[operator]


def test_what_is_written_is_the_trained_model_for_plain_transformers(work: Work) -> None:
    """Loaded by its name alone, with the chat template of the folder, it answers word for word."""
    merged = AutoModelForCausalLM.from_pretrained(work.records.merge.path("model"), dtype="auto").eval()
    assert [f.name for f in work.folders] == ["gptq-w4a16-g32", "awq-w4a16-g32"]
    for folder, kl in zip(work.folders, (0.2, 0.2), strict=True):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        right = 0
        for question, answer in PAIRS:
            chat = [{"role": "user", "content": question}]
            ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
            assert ids == work.pipeline().renderer.prompt_ids(chat)
            a, b = said(merged, ids), said(model, ids)
            assert float((a.exp() * (a - b)).sum(-1)[-1]) < kl
            out = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=40)[0, len(ids) :]
            assert int(out[-1]) in work.pipeline().renderer.stop_ids
            right += tokenizer.decode(out, skip_special_tokens=True) == answer
        assert right >= 6
        packed = load_file(folder / "model.safetensors")
        assert sum(name.endswith("weight_packed") for name in packed) == 14
        assert model.generation_config.temperature == 0.5


def test_a_folder_says_what_it_is(work: Work) -> None:
    for folder in work.folders:
        record = json.loads((folder / "export.json").read_text())
        assert record["files"] == {n: d for n, d in contents(folder).items() if n != "export.json"}
        assert record["tool"] == work.tool.versions
        assert record["digests"]["merged"] == work.records.merge.digest
        figures = record["figures"]
        assert 0 <= figures["merged"]["kl"] < figures["exported"]["kl"]
        assert figures["exported"]["eval_loss"] == pytest.approx(figures["merged"]["eval_loss"], abs=0.5)
        assert record["chat_template"] == {"reproduced": 14, "differs": None, "typed": 1}
        card = (folder / "README.md").read_text()
        assert f"{figures['exported']['eval_loss']:.3f}" in card
        assert (folder / "prompt" / "golden.json").is_file()
    assert "at most 0.5" in (work.folders[0] / "README.md").read_text()


def test_a_second_run_finds_everything_done(work: Work, tmp_path: Path) -> None:
    heard = work.export(tmp_path / "out")
    assert heard.ran == ["folder", "folder"]
    assert [contents(tmp_path / "out" / f.name) for f in work.folders] == [contents(f) for f in work.folders]


def contents(folder: Path) -> dict[str, str]:
    return {file.path: file.digest for file in scan(folder).files}


@pytest.mark.parametrize("change", ["bits=8", "group_size=64", "samples=7", "format=awq"])
def test_another_setting_is_another_export(work: Work, change: str) -> None:
    other = work.pipeline(f"exports[0].{change}", "exports[1].bits=8")
    one, two = (p.export(p.spec.exports[0], work.records, work.tool) for p in (work.pipeline(), other))
    assert [field for field, _, _ in differences(inputs_of(one), inputs_of(two))] == [
        change.partition("=")[0]
    ]


def test_an_export_depends_on_the_model_the_rows_and_the_tool(work: Work) -> None:
    stage = work.pipeline().export(work.pipeline().spec.exports[0], work.records, work.tool)
    newer = Tool(work.tool.python, {**work.tool.versions, "llmcompressor": "0.15"})
    for changed in (
        replace(stage, merged=work.records.train),
        replace(stage, data=work.records.train),
        replace(stage, tool=newer),
        replace(stage, seed=1),
    ):
        assert key_of(changed) != key_of(stage)
    assert key_of(replace(stage, tool=Tool(Path("elsewhere"), work.tool.versions))) == key_of(stage)


def test_another_setting_runs_that_export_again_and_nothing_else(work: Work, tmp_path: Path) -> None:
    heard = work.export(tmp_path / "out", "exports[0].bits=8", "exports[0].gates.kl.max=0.01")
    assert heard.ran == ["export", "exported", "folder", "folder"]
    config = json.loads((tmp_path / "out" / "gptq-w8a16-g32" / "config.json").read_text())
    assert config["quantization_config"]["config_groups"]["group_0"]["weights"]["num_bits"] == 8


def test_a_gate_that_is_not_reached_writes_nothing(work: Work, tmp_path: Path) -> None:
    out, gate = tmp_path / "out", "exports[1].gates.kl.max=1e-9"
    named = ("--store", work.store.root, "-o", out, "--python", work.tool.python)
    done = tunebuild("export", work.spec, *named, "--set", gate)
    assert done.code == REFUSED
    assert done.out == ""
    assert re.search(r"spec\.yaml:\d+:\d+ exports\[1\]\.gates\.kl.*: \S+, at most 1e-09 is allowed", done.err)
    assert not out.exists()
    assert done.err.count("unchanged") == 8  # a limit is moved without measuring again
    (only,) = export(work.pipeline(gate), Heard(), work.tool.python, out, formats=("gptq",))
    assert only == out / "gptq-w4a16-g32"


def zero_scales(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    spoilt = {n: t * 0 if n.endswith("scale") else t for n, t in tensors.items()}
    save_file(spoilt, model / "model.safetensors", {"format": "pt"})


def swap_layers(model: Path) -> None:
    """Every tensor is right, and in the other layer."""
    tensors = load_file(model / "model.safetensors")
    other = {".0.": ".1.", ".1.": ".0."}
    moved = {re.sub(r"\.[01]\.", lambda m: other[m[0]], name): t for name, t in tensors.items()}
    save_file(moved, model / "model.safetensors", {"format": "pt"})


def drop_a_tensor(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight_packed"]
    save_file(tensors, model / "model.safetensors", {"format": "pt"})


@pytest.fixture
def judge(work: Work, tmp_path: Path) -> Callable[[Path], None]:
    """Measure a model's files as an export and hold them against its gates."""

    def judged(model: Path) -> None:
        pipeline = work.pipeline()
        one = pipeline.spec.exports[0]
        stage = pipeline.exported(one, work.records, scan(model.parent))
        (tmp_path / "figures").mkdir()
        stage.run(tmp_path, tmp_path / "figures", Silent())
        figures = read_exported(scan(tmp_path / "figures"))["metrics"]
        check_export_gates(one.gates, figures, "exports[0].gates")

    return judged


@pytest.mark.parametrize("spoil", [zero_scales, swap_layers])
def test_files_that_are_not_the_trained_model_are_refused(work, judge, tmp_path, spoil) -> None:
    model = tmp_path / "tree" / "model"
    shutil.copytree(work.folders[0], model)
    judge(model)
    shutil.rmtree(tmp_path / "figures")
    spoil(model)
    with pytest.raises(
        TunebuildError, match=r"exports\[0\]\.gates\.kl: .* at most 0\.5 is allowed"
    ) as caught:
        judge(model)
    assert caught.value.exit_code == REFUSED


def test_an_export_of_another_model_is_refused(work, judge, tmp_path) -> None:
    """The base, quantized with the same settings: what it says is not what was trained."""
    for name in ("merged", "work", "tree"):
        (tmp_path / name).mkdir()
    (tmp_path / "merged" / "model").symlink_to(work.spec.parent / "base")
    quantize(export_of(work, tmp_path / "merged"), tmp_path / "work", tmp_path / "tree", Silent())
    with pytest.raises(TunebuildError, match=r"exports\[0\]\.gates\.lost") as caught:
        judge(tmp_path / "tree" / "model")
    assert caught.value.exit_code == REFUSED


def export_of(work: Work, merged: Path) -> ExportStage:
    """The first export, of another model."""
    records = replace(work.records, merge=Tree(merged, ()))
    return work.pipeline().export(work.pipeline().spec.exports[0], records, work.tool)


def test_files_that_are_no_whole_model_are_named(work, judge, tmp_path) -> None:
    model = tmp_path / "tree" / "model"
    shutil.copytree(work.folders[0], model)
    drop_a_tensor(model)
    with pytest.raises(TunebuildError, match=r"tree/model lacks the tensor .*up_proj"):
        judge(model)


def test_what_the_tool_says_of_a_failure_is_told(work: Work, tmp_path: Path) -> None:
    (tmp_path / "merged" / "model").mkdir(parents=True)
    with pytest.raises(TunebuildError, match=r"status 1: \w+Error: .*; what it said is in (.*)") as caught:
        Store(tmp_path / "store").ensure(export_of(work, tmp_path / "merged"), Silent())
    log = Path(str(caught.value).rsplit(" ", 1)[1])
    assert "Traceback" in log.read_text()


def test_the_tool_ends_with_the_one_who_started_it(work: Work, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "from tunebuild.cli import main; main()", "export", work.spec]
    argv += ["--store", work.store.root, "-o", tmp_path, "--python", work.tool.python]
    argv += ["--set", "exports[0].samples=9"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        child = wait_for(lambda: child_of(process.pid, "quantize.py"))
        # Only once it has said that it will die with its parent does a kill prove anything.
        logs = "work/export-*/scratch/export.log"
        wait_for(lambda: sum(log.stat().st_size for log in work.store.root.glob(logs)))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_for(lambda: not Path("/proc", str(child), "cmdline").exists() or not cmdline(child))


def child_of(parent: int, program: str) -> int:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            inside = path.read_text().rpartition(")")[2].split()
            if int(inside[1]) == parent and program in cmdline(int(path.parent.name)):
                return int(path.parent.name)
        except OSError:
            continue
    return 0


def cmdline(process: int) -> str:
    try:
        return Path("/proc", str(process), "cmdline").read_text()
    except OSError:
        return ""


def wait_for(found: Callable[[], object]) -> int:
    for _ in range(1200):
        if value := found():
            return int(value)  # type: ignore[call-overload]
        time.sleep(0.05)
    raise AssertionError("it never came")


def test_what_is_no_export_is_not_written_over(work: Work, tmp_path: Path) -> None:
    (tmp_path / "awq-w4a16-g32").mkdir()
    (tmp_path / "awq-w4a16-g32" / "mine.txt").touch()
    with pytest.raises(TunebuildError, match="is there and no export"):
        work.export(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["awq-w4a16-g32"]


def test_an_interpreter_without_the_tool_is_refused_with_what_makes_one() -> None:
    with pytest.raises(TunebuildError, match=r"has no llm-compressor: .*llmcompressor; make an environment"):
        find_tool(Path(sys.executable))
    with pytest.raises(TunebuildError, match="No such file"):
        find_tool(Path("/nowhere/python"))
    with pytest.raises(TunebuildError, match="needs an environment of its own"):
        find_tool(None)

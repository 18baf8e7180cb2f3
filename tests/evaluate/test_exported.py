"""What an export is measured by is what the merge was measured by."""

from __future__ import annotations

import json

import pytest

from support.models import save_base
from support.rows import PAIRS
from tunebuild.build.pipeline import Pipeline
from tunebuild.build.run import measured
from tunebuild.errors import TunebuildError
from tunebuild.evaluate.exported import read_exported
from tunebuild.evaluate.metrics import REFUSED, check_export_gates, export_figures
from tunebuild.evaluate.stage import read_metrics
from tunebuild.spec import load_spec
from tunebuild.spec.exports import ExportGates, ExportSpec
from tunebuild.spec.gates import LossAtMost, ShareAtLeast
from tunebuild.store import Silent, Store

SPEC = """\
apiVersion: tunebuild/v1
name: measured
data: {train: [{path: rows.jsonl, format: qa}]}
model: {base: ./base}
prompt: {template: chatml}
tuning: {epochs: 4, batch_size: 5, learning_rate: 1e-2, compute_dtype: float32}
evaluation: {samples: 0}
"""


@pytest.mark.parametrize("method", ["qlora", "full"])
def test_the_merged_files_get_the_figures_that_the_build_recorded(tmp_path, method):
    pytest.importorskip("compressed_tensors", reason="pip install 'tunebuild[export]'")
    save_base("llama", tmp_path / "base")
    rows = (json.dumps({"question": q, "answer": a}) for q, a in PAIRS)
    (tmp_path / "rows.jsonl").write_text("".join(f"{row}\n" for row in rows))
    (tmp_path / "spec.yaml").write_text(SPEC)
    pipeline = Pipeline(
        load_spec(tmp_path / "spec.yaml", (f"tuning.method={method}",)), Store(tmp_path / "store")
    )
    records = measured(pipeline, lambda stage: Silent())
    stage = pipeline.exported(ExportSpec(format="gptq"), records, records.merge)
    found = read_exported(pipeline.store.ensure(stage, Silent()))
    assert found["metrics"] == export_figures(read_metrics(records.evaluate))
    assert (found["rows"], found["of"]) == (10, "train.arrow")


def test_gates_of_exports_name_every_figure_beyond_its_limit():
    figures = {"kl": 0.2, "lost": float("nan"), "top1": 0.5, "eval_loss": 1.0}
    gates = ExportGates(top1=ShareAtLeast(min=0.6), eval_loss=LossAtMost(max=1.0))
    with pytest.raises(
        TunebuildError, match=r"kl: 0\.2, at most 0\.1 is allowed; .* Nothing was written"
    ) as caught:
        check_export_gates(gates, figures, "exports[3].gates")
    assert caught.value.exit_code == REFUSED
    assert [d.path.rpartition(".")[2] for d in caught.value.diagnostics] == ["kl", "lost", "top1"]
    assert {d.path.rpartition(".")[0] for d in caught.value.diagnostics} == {"exports[3].gates"}
    check_export_gates(ExportGates(kl=None, lost=None), figures, "exports[3].gates")

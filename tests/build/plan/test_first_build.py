"""A spec that was never built is not told how it differs from somebody else's builds."""

from __future__ import annotations

from support.models import save_base
from tunebuild.build.pipeline import Pipeline
from tunebuild.build.plan.make import make_plan
from tunebuild.build.plan.render import why
from tunebuild.spec import load_spec
from tunebuild.store import Silent, Store

SPEC = """\
apiVersion: tunebuild/v1
name: {name}
data: {{train: [{{path: rows.jsonl}}]}}
model: {{base: ./base}}
prompt: {{template: chatml, system: {system}}}
"""


def test_only_earlier_builds_of_the_same_name_are_compared_with(tmp_path):
    save_base("llama", tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text('{"question": "Q?", "answer": "A."}\n' * 2)
    store = Store(tmp_path / "store")

    def pipeline(name, system):
        spec = tmp_path / f"{name}.yaml"
        spec.write_text(SPEC.format(name=name, system=system))
        return Pipeline(load_spec(spec), store)

    def reason(name, system):
        plan = make_plan(pipeline(name, system), tmp_path / "none.tar", lambda stage: Silent())
        return why(plan.stages[0])

    one = pipeline("one", "Be kind.")
    store.ensure(one.data(), Silent())
    store.note_use(one.data(), "one")
    assert reason("other", "Be brief.") == "not built before"
    assert reason("one", "Be quick.").startswith("prompt: ")

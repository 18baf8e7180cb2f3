"""``tunebuild deploy`` on specs, names and files: which digest it takes, and what it says without one."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner

from tunebuild.cli import app
from tunebuild.errors import TunebuildError
from tunebuild.image.oci.archive import write_archive
from tunebuild.spec import load_spec
from tunebuild.spec.canonical import effective
from tunebuild.store.digest import digest_json

_SPEC = """\
apiVersion: tunebuild/v1
name: bot
data: {{train: [{{path: rows.jsonl, format: qa}}]}}
model: {{base: ./base}}
image: {{repository: {repository}, tag: "7"}}
"""


def deploy(*arguments):
    return CliRunner().invoke(app, ["deploy", *map(str, arguments)], standalone_mode=False)


def push(archive, reference):
    return CliRunner().invoke(
        app, ["push", str(archive), reference, "--plain-http", "--store", str(archive.parent / "store")]
    )


def write_spec(path, repository):
    (path.parent / "rows.jsonl").write_text('{"question": "Why?", "answer": "So."}\n')
    (path.parent / "base").mkdir()
    (path.parent / "base" / "config.json").write_text("{}")
    path.write_text(_SPEC.format(repository=repository))
    return path


@pytest.fixture
def spec(tmp_path, registry):
    return write_spec(tmp_path / "spec.yaml", f"{registry}/team/bot")


def test_a_spec_is_deployed_by_the_digest_of_what_was_pushed_of_it(tmp_path, registry, spec, make_image):
    wanted = ("--to", "kubernetes", "--plain-http")
    error = deploy(spec, *wanted).exception
    assert isinstance(error, TunebuildError)
    assert "so there is no digest to deploy yet" in str(error)
    assert f"run 'tunebuild push {spec}' first" in str(error)

    image = make_image(spec_digest=digest_json(effective(load_spec(spec).spec)), port=9000)
    archive = tmp_path / "bot.tar"
    write_archive(image, archive)
    assert push(archive, f"{registry}/team/bot:7").exit_code == 0
    done = deploy(spec, *wanted, "-o", tmp_path / "out")
    assert done.exception is None
    assert (
        "needs   the Secret support-bot-api-keys: the clients' API keys, one a line: kubectl create secret"
        in done.stderr
    )
    text = (tmp_path / "out" / "kubernetes.yaml").read_text()
    pod = next(r for r in yaml.safe_load_all(text) if r["kind"] == "Deployment")["spec"]["template"]
    assert pod["spec"]["containers"][0]["image"] == f"{registry}/team/bot@{image.digest}"
    assert pod["spec"]["containers"][0]["ports"][0]["containerPort"] == 9000
    config = json.loads(image.config)["config"]
    assert (
        f"{pod['spec']['securityContext']['runAsUser']}:{pod['spec']['securityContext']['runAsGroup']}"
        == (config["User"])
    )
    assert pod["metadata"]["labels"]["app.kubernetes.io/version"] == "7"
    assert deploy(f"{registry}/team/bot:7", *wanted).stdout == text
    by_digest = yaml.safe_load_all(deploy(f"{registry}/team/bot@{image.digest}", *wanted).stdout)
    assert [r["kind"] for r in by_digest] == [r["kind"] for r in yaml.safe_load_all(text)]

    spec.write_text(spec.read_text() + "serving: {limits: {queue: 1}}\n")
    error = deploy(spec, *wanted).exception
    assert "was built from another spec" in str(error)
    assert f"tunebuild push {spec}" in str(error)


def test_an_archive_tells_its_digest_and_that_nobody_was_asked(tmp_path, make_image):
    from dataclasses import replace

    from tunebuild.image.oci.reference import ImageReference

    image = replace(make_image(), reference=ImageReference.parse("registry.example.com/team/bot:3"))
    write_archive(image, tmp_path / "bot.tar")
    done = deploy(tmp_path / "bot.tar", "--to", "compose")
    assert "a registry was not asked" in done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert services["support-bot"]["image"] == f"registry.example.com/team/bot@{image.digest}"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("bot.tar", "names no registry that it could be pulled from"),
        ("bot:1", "names no registry"),
        ("bot.yaml", "image.repository: bot:7 names no registry; set image.repository"),
        ("missing.tar", "there is no image at"),
        ("missing.yaml", "missing.yaml"),
        ("Bad Name", "is not an image reference"),
    ],
)
def test_what_has_no_digest_to_deploy_says_what_to_run(tmp_path, monkeypatch, make_image, source, said):
    from dataclasses import replace

    from tunebuild.image.oci.reference import ImageReference

    monkeypatch.chdir(tmp_path)
    write_archive(replace(make_image(), reference=ImageReference.parse("bot:1")), tmp_path / "bot.tar")
    write_spec(tmp_path / "bot.yaml", "bot")
    error = deploy(source, "--to", "compose").exception
    assert isinstance(error, TunebuildError)
    assert said in str(error)


def test_weights_alone_are_no_endpoint(tmp_path, make_inputs):
    from tunebuild.image.plan import assemble, plan_image

    inputs = make_inputs(tmp_path / "in", "bot")  # its settings are not a server's
    write_archive(assemble(plan_image(inputs)), tmp_path / "bot.tar")
    error = deploy(tmp_path / "bot.tar", "--to", "compose").exception
    assert "bot" in str(error)
    assert error.diagnostics[0].code in ("bad-bundle", "no-registry", "no-bundle")

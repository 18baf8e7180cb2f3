"""``tunebuild deploy`` on specs, names and files: which digest it takes, and what it says without one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from click.testing import CliRunner

from support.deployed import write_settings
from tunebuild.cli import app
from tunebuild.deploy.find import Place, find_endpoint
from tunebuild.errors import TunebuildError
from tunebuild.image.oci.archive import write_archive
from tunebuild.image.oci.content import Content
from tunebuild.image.oci.reference import ImageReference
from tunebuild.image.plan import assemble, plan_image
from tunebuild.publish.envelopes import weights_image
from tunebuild.publish.layout import LayoutPublisher
from tunebuild.publish.memory import PushMemory
from tunebuild.publish.registry import RegistryPublisher
from tunebuild.publish.release import Release
from tunebuild.registry import Options, Registries
from tunebuild.spec import load_spec
from tunebuild.spec.canonical import effective
from tunebuild.store import Silent
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
    monkeypatch.chdir(tmp_path)
    write_archive(replace(make_image(), reference=ImageReference.parse("bot:1")), tmp_path / "bot.tar")
    write_spec(tmp_path / "bot.yaml", "bot")
    error = deploy(source, "--to", "compose").exception
    assert isinstance(error, TunebuildError)
    assert said in str(error)


def test_settings_of_another_version_are_told(tmp_path, make_inputs):
    inputs = make_inputs(tmp_path / "in", "bot")
    inputs = replace(inputs, reference=ImageReference.parse("registry.example.com/bot:1"))
    write_archive(assemble(plan_image(inputs)), tmp_path / "bot.tar")  # its settings are a name alone
    error = deploy(tmp_path / "bot.tar", "--to", "compose").exception
    assert "bundle.json: prompt_digest: Field required; use the tunebuild that built it" in str(error)


def test_weights_alone_are_no_endpoint(tmp_path, make_image):
    image = replace(make_image(), reference=ImageReference.parse("registry.example.com/bot:1"))
    content = weights_image(image)
    LayoutPublisher(tmp_path / "weights", image.reference).publish(Release((content,)), Silent())
    error = deploy(tmp_path / "weights", "--to", "compose").exception
    assert "is no runnable image of tunebuild" in str(error)


def test_images_of_others_are_refused_without_fetching_them(tmp_path, registry, make_image):
    """An index, as most public images are, and an image without the label that ours have."""
    image = make_image()
    write_archive(image, tmp_path / "bot.tar")
    assert push(tmp_path / "bot.tar", f"{registry}/team/bot:7").exit_code == 0
    repository = Registries(Options.of_machine(plain_http=True, ca_file=None)).repository(
        registry, "team/bot"
    )
    kind = "application/vnd.oci.image.index.v1+json"
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.digest}
    entry["size"] = len(image.manifest)
    index = {"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}
    repository.put_manifest("index", json.dumps(index).encode(), kind)
    error = deploy(f"{registry}/team/bot:index", "--to", "compose", "--plain-http").exception
    assert "is an index of several images" in str(error)


def test_an_image_without_our_label_is_not_looked_into(tmp_path, make_inputs):
    inputs = make_inputs(tmp_path / "in", "bot")
    write_settings(inputs.bundle)
    plan = plan_image(replace(inputs, reference=ImageReference.parse("registry.example.com/bot:1")))
    write_archive(assemble(replace(plan, runtime=replace(plan.runtime, labels=()))), tmp_path / "bot.tar")
    error = deploy(tmp_path / "bot.tar", "--to", "compose").exception
    assert "is no runnable image of tunebuild" in str(error)


def test_a_health_check_that_was_lost_on_the_way_is_the_image_s_own(tmp_path, make_inputs):
    inputs = make_inputs(tmp_path / "in", "bot")
    write_settings(inputs.bundle)
    plan = plan_image(replace(inputs, reference=ImageReference.parse("registry.example.com/bot:1")))
    files = {}
    for name, runtime in (("all", plan.runtime), ("less", replace(plan.runtime, healthcheck=None))):
        write_archive(assemble(replace(plan, runtime=runtime)), tmp_path / f"{name}.tar")
        services = yaml.safe_load(deploy(tmp_path / f"{name}.tar", "--to", "compose").stdout)["services"]
        files[name] = services["support-bot"]
        assert files[name].pop("image")
    assert files["all"] == files["less"]


def test_weights_that_were_pushed_with_the_image_are_found(tmp_path, registry, make_image):
    image = make_image(device="cuda")
    options = Options.of_machine(plain_http=True, ca_file=None)
    repository = Registries(options).repository(registry, "team/bot")
    name = ImageReference.parse(f"{registry}/team/bot:7")
    weights = weights_image(image)
    publisher = RegistryPublisher(repository, name, PushMemory(None))
    publisher.publish(Release((Content.of_image(image), weights)), Silent())
    place = Place(plain_http=True)
    assert find_endpoint(str(name), place)[0].weights == weights.digest

    # The tag is moved to weights of another image, which are not this one's.
    strange = json.loads(weights.manifest)
    strange["layers"].append(
        {**strange["layers"][0], "digest": json.loads(image.manifest)["config"]["digest"]}
    )
    repository.put_manifest("7-weights", json.dumps(strange).encode(), strange["mediaType"])
    assert find_endpoint(str(name), place)[0].weights is None


def test_a_place_that_cannot_be_written_is_told(tmp_path, make_image):
    image = replace(make_image(), reference=ImageReference.parse("registry.example.com/bot:1"))
    write_archive(image, tmp_path / "bot.tar")
    (tmp_path / "file").touch()
    error = deploy(tmp_path / "bot.tar", "--to", "compose", "-o", tmp_path / "file" / "below").exception
    assert isinstance(error, TunebuildError)
    assert "cannot write" in str(error)

"""One spec becomes a running image that answers word for word: the promise, with real parts."""

from __future__ import annotations

import json
import mmap
import re
import shutil
import signal
import subprocess
import sys
import time

import openai
import pytest

from support.containers import need_runtime
from support.quickstart import copy_quickstart, tunebuild
from tunebuild.containers.runtime import RunOptions, wait_ready
from tunebuild.image.oci.integrity import check_image
from tunebuild.image.oci.reading import open_archive
from tunebuild.image.oci.reference import ImageReference

QUESTION, PORT = "How do I set up Larder for the first time?", 18431


def test_stdout_is_the_digest_and_nothing_else(quickstart):
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", quickstart.digest)
    image = open_archive(quickstart.archive)
    assert image.digest == quickstart.digest
    check_image(image)
    assert image.config["config"]["User"] == "65532:65532"


@pytest.mark.parametrize("runtime", ["docker", "podman", "none"])
def test_every_trained_question_is_answered_word_for_word(quickstart, runtime):
    if runtime != "none":
        need_runtime(runtime)
    named = ("--set", "image.tag=only-checked")
    done = quickstart.run("verify", *named, "--runtime", runtime, "--min-exact", "1.0")
    assert done.code == 0, done.err
    assert re.search(r"(\d+) of \1 word for word", done.err)
    assert "golden vectors reproduce" in done.err
    if runtime != "none":  # which it leaves as it was
        listed = subprocess.run([runtime, "images"], capture_output=True, text=True, check=True).stdout
        assert "only-checked" not in listed
        assert "tunebuild-checked" not in listed


@pytest.mark.runtime
def test_container_runs_read_only_without_capabilities(quickstart):
    """Offline, read-only, unprivileged; the openai client; the health check; a prompt end on SIGTERM."""
    runtime = need_runtime("docker")
    assert quickstart.run("build", "--load").code == 0
    options = RunOptions(port=PORT)
    container = runtime.run(ImageReference.parse("larder-desk:latest"), options)
    try:
        wait_ready(container, options)
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{PORT}/v1", api_key="none", max_retries=0)
        rows = (quickstart.spec.parent / "faq.jsonl").read_text().splitlines()
        expected = {json.loads(r)["question"]: json.loads(r)["answer"] for r in rows}
        messages = [{"role": "user", "content": QUESTION}]
        whole = client.chat.completions.create(model="larder-desk", messages=messages)
        stream = client.chat.completions.create(model="larder-desk", messages=messages, stream=True)
        streamed = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
        assert whole.choices[0].message.content == streamed == expected[QUESTION]
        assert whole.choices[0].finish_reason == "stop"
        details = json.loads(
            subprocess.run(["docker", "inspect", container.id], capture_output=True, check=True).stdout
        )[0]
        assert details["HostConfig"]["ReadonlyRootfs"]
        assert details["Config"]["User"] == "65532:65532"
        assert "HF_HUB_OFFLINE=1" in details["Config"]["Env"]
        deadline = time.monotonic() + 40
        while container.health() != "healthy" and time.monotonic() < deadline:
            time.sleep(0.5)
        assert container.health() == "healthy"
    finally:
        started = time.monotonic()
        code = container.stop()
    assert code in (0, 143)
    assert time.monotonic() - started < 8


@pytest.mark.runtime
def test_the_docker_back_end_answers_the_same_in_both_runtimes(quickstart):
    """The image that the Docker built, also handed to Podman as a user would hand it on."""
    docker, podman = need_runtime("docker"), need_runtime("podman")
    done = quickstart.run("build", "--builder", "docker")
    assert done.code == 0, done.err
    built = ImageReference.parse("larder-desk:latest")
    handed = _handed_to_podman(built)
    assert podman.image_id(handed) == docker.image_id(built)
    for runtime, reference in ((docker, built), (podman, handed)):
        options = RunOptions(port=PORT + 1)
        container = runtime.run(reference, options)
        try:
            wait_ready(container, options)
            url = f"http://127.0.0.1:{options.port}"
            asked = quickstart.run("verify", "--url", url, "--min-exact", "1.0")
            assert asked.code == 0, f"{runtime.name}: {asked.err}"
        finally:
            container.stop()


def _handed_to_podman(built: ImageReference) -> ImageReference:
    """What ``docker save | podman load`` makes of the image."""
    with subprocess.Popen(["docker", "save", str(built)], stdout=subprocess.PIPE) as save:
        subprocess.run(["podman", "load"], stdin=save.stdout, capture_output=True, check=True)
    assert save.returncode == 0
    return ImageReference.parse(f"localhost/{built}")  # Docker saves short names; Podman calls them local


def test_nothing_changed_does_nothing(quickstart):
    done = quickstart.run("build")
    assert done.code == 0
    assert done.out.strip() == quickstart.digest
    assert "nothing changed" in done.err
    assert done.err.count("unchanged") == 8
    assert "is up to date" in done.err


def test_a_serving_edit_does_not_train(quickstart, tmp_path):
    shutil.copytree(quickstart.spec.parent, tmp_path / "edited")
    spec = tmp_path / "edited" / "spec.yaml"
    spec.write_text(spec.read_text().replace("max_tokens: 64", "max_tokens: 63"))
    done = tunebuild("build", spec, "--store", quickstart.store)
    assert done.code == 0, done.err
    assert done.out.strip() != quickstart.digest
    for stage in ("data", "train", "merge", "evaluate", "weights", "runtime"):
        assert re.search(rf"{stage}\s+unchanged", done.err), done.err
    assert not re.search(r"image\s+unchanged", done.err)
    old, new = (
        open_archive(quickstart.archive),
        open_archive(tmp_path / "edited" / "dist" / "larder-desk.tar"),
    )
    assert old.layers[:-1] == new.layers[:-1]


def test_a_serving_edit_reads_no_weights(quickstart, tmp_path):
    """Into a layout that has the old image: every file that the build opens is looked at."""
    layout = tmp_path / "layout"
    assert quickstart.run("build", "-o", layout).code == 0
    script = (
        "import sys;"
        "opened = [];"
        "sys.addaudithook(lambda e, a: opened.append(str(a[0])) if e == 'open' else None);"
        "from tunebuild.cli import app;"
        "app(sys.argv[1:], standalone_mode=False);"
        "print(*opened, sep='\\n')"
    )
    argv = [sys.executable, "-c", script, "build", quickstart.spec, "--store", quickstart.store, "-o", layout]
    argv += ["--set", "serving.defaults.max_tokens=61"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    opened = done.stdout.splitlines()
    assert any(name.endswith("bundle.json") for name in opened)
    assert [name for name in opened if name.endswith((".safetensors", "torch.tar"))] == [
        str(quickstart.spec.parent / "base" / "model.safetensors")  # its header: is it whole?
    ]


def test_another_directory_gives_the_same_image(quickstart, tmp_path):
    """Training is recorded, not repeated: given its output, everything else is the same byte for byte."""
    spec = copy_quickstart(tmp_path / "elsewhere" / "two")
    store = tmp_path / "other-store"
    shutil.copytree(quickstart.store / "records" / "train", store / "records" / "train")
    for record in (store / "records" / "train").iterdir():
        tree = json.loads(record.read_text())["output"].removeprefix("sha256:")
        (store / "trees").mkdir(exist_ok=True)
        shutil.copytree(quickstart.store / "trees" / tree, store / "trees" / tree)
        shutil.copy(quickstart.store / "trees" / f"{tree}.json", store / "trees")
    done = tunebuild("build", spec, "--store", store, env={"TZ": "Asia/Kolkata"})
    assert done.code == 0, done.err
    assert re.search(r"train\s+unchanged", done.err)
    assert not re.search(r"(data|merge|weights|runtime|image)\s+unchanged", done.err)
    assert done.out.strip() == quickstart.digest


def test_a_gate_that_is_not_reached_makes_no_image(quickstart, tmp_path):
    archive = tmp_path / "x.tar"
    gate = "gates.eval_loss={max: 0.01}"
    done = quickstart.run("build", "--set", gate, "-o", archive)
    assert done.code == 3
    assert done.out == ""
    assert re.search(r"gates\.eval_loss.*at most 0\.01 is allowed.*No image was made", done.err)
    assert not archive.exists()
    report = tmp_path / "x-report" / "refused.html"
    assert str(report) in done.err
    assert "✗ at most 0.01" in report.read_text()
    assert [p.name for p in report.parent.iterdir()] == ["refused.html"]
    assert re.search(r"evaluate\s+unchanged", done.err)  # a limit is moved without measuring again
    assert "KL" in quickstart.err
    report.unlink()
    report.mkdir()  # so it cannot be written
    again = quickstart.run("build", "--set", gate, "-o", archive)
    assert again.code == 3
    assert re.search(r"report +not written: IsADirectoryError", again.err)
    assert "at most 0.01 is allowed" in again.err


def test_a_killed_build_goes_on_where_it_was(quickstart, tmp_path):
    spec = copy_quickstart(tmp_path / "killed")
    spec.write_text(re.sub(r"epochs: \d+", "epochs: 3", spec.read_text()))
    argv = [
        sys.executable,
        "-c",
        "from tunebuild.cli import main; main()",
        "build",
        spec,
        "--store",
        quickstart.store,
    ]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    work = quickstart.store / "work"
    deadline = time.monotonic() + 120
    while not list(work.glob("train-*/scratch/checkpoints/checkpoint-*/sealed.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = tunebuild("build", spec, "--store", quickstart.store)
    assert done.code == 0, done.err
    assert re.search(r"going on from step \d+ of 60", done.err)
    assert not list(work.iterdir())


def test_one_changed_byte_in_the_archive_is_found(quickstart, tmp_path):
    broken = tmp_path / "broken.tar"
    shutil.copyfile(quickstart.archive, broken)
    with broken.open("r+b") as stream:
        stream.seek(broken.stat().st_size // 2)
        byte = stream.read(1)
        stream.seek(-1, 1)
        stream.write(bytes([byte[0] ^ 1]))
    done = tunebuild("verify", broken, "--offline")
    assert done.code == 1
    assert "torch" in done.err
    assert tunebuild("verify", quickstart.archive, "--offline").code == 0


def test_render_writes_a_context_that_any_builder_takes(quickstart, tmp_path):
    done = quickstart.run("render", "-o", tmp_path / "context")
    assert done.code == 0, done.err
    dockerfile = (tmp_path / "context" / "Dockerfile").read_text()
    assert "FROM scratch" in dockerfile
    assert not re.search(r"^RUN", dockerfile, re.MULTILINE)


def test_merged_weights_are_written_once(quickstart):
    """Layers are ranges of the merge's own files: nothing is tarred on disk before it is loaded or pushed."""
    files = [path for path in quickstart.store.rglob("*") if path.is_file() and not path.is_symlink()]
    shards = [path for path in files if re.fullmatch(r"model-merged.*\.safetensors", path.name)]
    assert shards
    for shard in shards:
        middle = shard.read_bytes()[shard.stat().st_size // 2 :][:4096]
        holders = []
        for path in files:
            if path.stat().st_size < len(middle):
                continue
            with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content.find(middle) >= 0:
                    holders.append(path)
        assert shard in holders
        assert {path.name for path in holders} == {shard.name}, "other files hold weights than a merge's"

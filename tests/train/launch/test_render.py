"""What starts a training on several machines: rendered, and torchrun's commands run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from support.models import save_base
from support.quickstart import tunebuild
from support.rows import PAIRS
from tunebuild.build.pipeline import Pipeline
from tunebuild.build.run import build
from tunebuild.errors import TunebuildError
from tunebuild.spec import load_spec
from tunebuild.store import Silent, Store
from tunebuild.train.launch.render import Launch, render_launch
from tunebuild.train.launch.together import Together

SPEC = """\
apiVersion: tunebuild/v1
name: two.nodes
data: {train: [{path: rows.jsonl, format: qa}]}
model: {base: ./base}
tuning: {method: lora, nodes: 2, epochs: 20, batch_size: 4, learning_rate: 1e-2, warmup_steps: 0,
  max_length: 128, compute_dtype: float32, lora: {r: 4, alpha: 8}}
"""


@pytest.fixture
def spec(tmp_path):
    directory = tmp_path / "it's here"  # which a shell must not trip over
    directory.mkdir()
    (directory / "rows.jsonl").write_text(
        "".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in PAIRS), "utf-8"
    )
    path = directory / "spec.yaml"
    path.write_text(SPEC, "utf-8")
    save_base("llama", directory / "base")
    return path


def pipeline(spec: Path, *overrides: str) -> Pipeline:
    return Pipeline(load_spec(spec, overrides), Store(spec.parent / "store"))


def losses(trained) -> list[float]:
    lines = map(json.loads, trained.path("metrics.jsonl").read_text("utf-8").splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@contextmanager
def started_nodes(spec: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """The rendered commands, run at once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = tunebuild("launch", spec, "--store", spec.parent / "store", "--port", port).out
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    agents = [
        subprocess.Popen(["bash", "-c", line], env=env, stderr=subprocess.PIPE, text=True)
        for line in text.splitlines()
        if not line.startswith("#")
    ]
    try:
        yield agents
    finally:
        for agent in agents:
            agent.terminate()


def ended(agents: list[subprocess.Popen[str]]) -> tuple[list[int], list[str]]:
    """Their exit codes and what they said."""
    errors = [agent.communicate(timeout=150)[1] for agent in agents]
    return [agent.returncode for agent in agents], errors


def run_nodes(spec: Path) -> tuple[list[int], list[str]]:
    """Run the rendered commands at once; their exit codes and what they said."""
    with started_nodes(spec) as agents:
        return ended(agents)


def workers(agent: int) -> list[int]:
    """Ids of what a launcher started."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text("ascii").split()
    found = []
    for child in map(int, children):
        words = Path(f"/proc/{child}/cmdline").read_bytes()
        found += workers(child) if b"torchrun" in words else [child]
    return found


def last_sealed(spec: Path) -> int:
    """Step of the newest checkpoint."""
    seals = (spec.parent / "store" / "work").glob("train-*/scratch/checkpoints/checkpoint-*/sealed.json")
    return max((int(seal.parent.name.rpartition("-")[2]) for seal in seals), default=0)


def kill_nodes(spec: Path, victims: slice) -> None:
    """Run the commands and end some of the processes by force when they have come a checkpoint further."""
    before = last_sealed(spec)
    with started_nodes(spec) as agents:
        while last_sealed(spec) == before:
            assert all(agent.poll() is None for agent in agents), ended(agents)
            time.sleep(0.01)
        for worker in [worker for agent in agents for worker in workers(agent.pid)][victims]:
            os.kill(worker, signal.SIGKILL)
        codes, errors = ended(agents)
    assert all(codes), errors


@pytest.mark.slow
def test_two_nodes_match_one_process_after_kill_and_build_reuses_it(spec):
    with pytest.raises(TunebuildError, match="'tunebuild launch SPEC' renders"):
        build(pipeline(spec), lambda stage: Silent())

    kill_nodes(spec, slice(1, 2))  # the others have to end by themselves
    seal = next(iter((spec.parent / "store" / "work").rglob("sealed.json")))
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= json.loads(seal.read_text("utf-8")).keys()
    kill_nodes(spec, slice(None))
    begun = last_sealed(spec)
    codes, errors = run_nodes(spec)
    assert codes == [0, 0], errors
    assert f"going on from step {begun} of 60" in errors[0]

    two, one = pipeline(spec), pipeline(spec, "tuning.nodes=1")
    data = two.store.find(two.data())
    trained = two.store.find(two.train(data))
    result = json.loads(trained.path("result.json").read_text("utf-8"))
    assert result["processes"] == 2
    alone = one.store.ensure(one.train(data), Silent())
    assert losses(trained) == pytest.approx(losses(alone), rel=1e-4)  # over 60 steps, rounding adds up
    assert len(losses(alone)) == 60

    begun = []

    class Stopped(Exception):
        pass

    def reporter(stage):
        begun.append(stage)
        if stage == "merge":
            raise Stopped
        return Silent()

    two.store.adopt(two.runtime(), data)  # nothing that a training has to do with
    with pytest.raises(Stopped):
        build(two, reporter)
    assert begun == ["spec", "data", "train", "merge"]  # the base has fewer positions than the usual context


@pytest.mark.slow
def test_an_error_in_rank_zero_ends_all_ranks(spec):
    (spec.parent / "rows.jsonl").write_text('{"question": 1, "answer": "one"}\n', "utf-8")
    codes, errors = run_nodes(spec)
    assert codes == [1, 0], errors
    assert "rows.jsonl:1: column 'question' is not text" in errors[0]


def test_without_a_launcher_it_says_what_starts_it():
    with pytest.raises(TunebuildError, match=r"RANK, .* not set; start it with what 'tunebuild launch SPEC'"):
        Together()


def test_a_slurm_script_is_one_for_bash(spec, tmp_path):
    script = tmp_path / "job.sh"
    launch = Launch(tmp_path / "store", ["description=It's $HOME"])
    loaded = load_spec(spec, ["tuning.processes=2"])
    script.write_text(render_launch(loaded, "slurm", launch), "utf-8")
    subprocess.run(["bash", "-n", script], check=True)
    # Run with stand-ins for Slurm's programs, it hands over the words that were meant.
    for name, body in {"scontrol": "echo one; echo two", "srun": 'printf "%s\\0" "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n", "utf-8")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "x", "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash", script], check=True, capture_output=True, text=True, env=env)
    words = done.stdout.split("\0")[:-1]
    assert words[:5] == ["torchrun", "--nnodes", "2", "--nproc-per-node", "2"]
    assert words[words.index("--rdzv-endpoint") + 1] == "one:29500"
    assert words[-7:] == [
        "tunebuild", "train", str(spec), "--store", str(tmp_path / "store"),
        "--set", "description=It's $HOME",
    ]  # fmt: skip


def test_kubernetes_job_has_one_pod_per_node(spec, tmp_path):
    launch = Launch(
        tmp_path / "store", ["description=$(X): it's"], image="example.com/train:1", claim="shared"
    )
    loaded = load_spec(spec, ["tuning.processes=2"])
    service, job = yaml.safe_load_all(render_launch(loaded, "kubernetes", launch))
    assert service["spec"]["clusterIP"] == "None"
    assert service["metadata"]["name"] == job["metadata"]["name"] == "train-two-nodes"
    assert service["spec"]["selector"] == {"job-name": "train-two-nodes"}
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    pod = job["spec"]["template"]["spec"]
    assert pod["subdomain"] == "train-two-nodes"
    (container,) = pod["containers"]
    assert container["image"] == "example.com/train:1"
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 2}}
    (rank,) = container["env"]
    assert rank["name"] == "NODE_RANK"
    assert "job-completion-index" in rank["valueFrom"]["fieldRef"]["fieldPath"]
    assert container["command"][:6] == [
        "torchrun", "--nnodes=2", "--nproc-per-node=2", "--node-rank=$(NODE_RANK)",
        "--master-addr=train-two-nodes-0.train-two-nodes", "--master-port=29500",
    ]  # fmt: skip
    assert container["command"][-6:] == [
        "train", "/work/spec.yaml", "--store", "/work/store", "--set", "description=$$(X): it's",
    ]  # fmt: skip
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "shared"}
    assert container["volumeMounts"][0] == {"name": "shared", "mountPath": "/work"}


def test_a_kubernetes_job_needs_an_image_and_a_claim(spec, tmp_path):
    with pytest.raises(TunebuildError, match="--image and --claim"):
        render_launch(load_spec(spec), "kubernetes", Launch(tmp_path / "store"))


def test_nodes_and_processes_share_a_step(spec):
    with pytest.raises(TunebuildError, match="6 processes cannot share a step of 4 rows"):
        load_spec(spec, ["tuning.processes=3"])

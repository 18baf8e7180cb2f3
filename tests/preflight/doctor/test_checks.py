"""Each check finds the fault that is put before it, and says how to mend it."""

from __future__ import annotations

import base64
import json
import re
import socket

import pytest

from support.machine import AnyMachine
from tunebuild.errors import fail
from tunebuild.image.debian.sources import Repository
from tunebuild.preflight.doctor import (
    card,
    disk,
    hub,
    memory,
    mirrors,
    packages,
    quantization,
    registry,
    runtimes,
)
from tunebuild.preflight.doctor.finding import Needs
from tunebuild.preflight.doctor.machine import Machine, Ran

SPEC = Needs(name="desk")


def found(check, machine, needs=None):
    """Status and text of all findings; what is not well has a fix, and all are one line."""
    findings = list(check.check(machine, needs))
    for one in findings:
        assert bool(one.fix) == (one.status != "ok")
        assert "\n" not in one.text + one.fix
    return [(one.status, one.text) for one in findings]


def statuses(check, machine, needs=None):
    return {status for status, _ in found(check, machine, needs)}


# Packages.


def test_what_is_installed_here_is_complete():
    assert all(status == "ok" for status, text in found(packages, Machine("/x")) if "'train'" in text)


class _Other(AnyMachine):
    def __init__(self, **other):
        super().__init__()
        self.other = other

    def version(self, distribution):
        return self.other.get(distribution.replace("-", "_"), super().version(distribution))


def test_a_version_that_an_extra_refuses_is_named():
    machine = _Other(transformers="4.40.0", pyarrow=None)
    said = {
        text.split("'")[1]: (status, text) for status, text in found(packages, machine, SPEC) if "'" in text
    }
    assert said["train"][0] == "problem"
    assert "transformers 4.40.0 (needs " in said["train"][1]
    assert said["serve"][0] == "warning"  # which is not needed for a build
    plan = Needs(name="desk", extras=("plan",))
    lacks = [one for one in found(packages, machine, plan) if "lacks pyarrow" in one[1]]
    assert [status for status, _ in lacks] == ["problem"]


def test_an_extra_that_nobody_asked_for_may_be_absent():
    machine = _Other(lm_eval=None)
    assert ("ok", "the extra 'lm-eval' (tasks) is not installed, and not needed for this") in found(
        packages, machine
    )
    asked = Needs(name="desk", extras=("train", "lm-eval"))
    assert "problem" in {s for s, text in found(packages, machine, asked) if "lm-eval" in text}


def test_another_python_is_a_problem(monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    assert found(packages, AnyMachine())[0][0] == "problem"


# The card.

H100 = "NVIDIA H100, 580.65.06, 9.0, 81559 MiB\n"
KERNELS = ["sm_80", "sm_90", "compute_90"]


def with_card(smi=H100, **torch):
    told = {"version": "2.13.0", "cuda": "13.0", "kernels": KERNELS, "works": "", **torch}
    ran = {"nvidia-smi": Ran(0, smi, ""), "python": Ran(0, f"a warning\n{json.dumps(told)}\n", "")}
    return AnyMachine(versions={"torch": "2.13.0"}, ran=ran)


def test_a_card_that_computes():
    assert found(card, with_card()) == [
        ("ok", "torch 2.13.0 computes on NVIDIA H100 (85.5 GB, driver 580.65.06)")
    ]


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (with_card(H100.replace("580.65", "535.12")), "driver 535.12.06 is older than 580, which CUDA 13.0"),
        (
            with_card(H100.replace("9.0,", "7.5,")),
            "no kernels for NVIDIA H100, whose compute capability is 7.5",
        ),
        (with_card(cuda=None), "is a build for CPUs"),
        (with_card(works="CUDA error: unknown"), "cannot compute on NVIDIA H100 .*CUDA error"),
        (AnyMachine(ran={"nvidia-smi": Ran(9, "NVIDIA-SMI has failed", "")}), "does not answer: NVIDIA-SMI"),
        (
            AnyMachine(ran={"nvidia-smi": Ran(None, "", "did not end within 20 seconds")}),
            "did not end within 20",
        ),
    ],
)
def test_a_driver_and_card_that_torch_cannot_use_are_problems(machine, words):
    ((status, text),) = found(card, machine)
    assert status == "problem"
    assert re.search(words, text), text


def test_without_driver_or_torch_nothing_is_broken():
    assert statuses(card, AnyMachine()) == {"ok"}
    no_torch = AnyMachine(versions={}, ran={"nvidia-smi": Ran(0, H100, "")})
    assert statuses(card, no_torch) == {"warning"}
    assert statuses(card, AnyMachine(ran={"nvidia-smi": Ran(0, "", "")})) == {"warning"}


@pytest.mark.parametrize(
    ("capability", "kernels", "runs"),
    [
        ("8.6", ["sm_80"], True),  # a minor release later, the same major
        ("8.0", ["sm_86"], False),
        ("9.0", ["sm_80"], False),
        ("9.0", ["sm_80", "compute_80"], True),  # the driver compiles it
        ("12.0", ["sm_100", "sm_120"], True),
        ("10.3", ["sm_100"], True),
        ("10.3", ["sm_100a"], False),  # for that one alone
        ("9.0", ["sm_90a"], True),
        ("10.3", ["sm_100f"], True),
        ("7.5", [], False),
    ],
)
def test_which_kernels_run_on_which_card(capability, kernels, runs):
    assert card._runs(capability, kernels) == runs


def test_two_cards_are_told_of_one_by_one():
    both = H100 + "NVIDIA T4, 580.65.06, 7.5, 15360 MiB\n"
    assert [status for status, _ in found(card, with_card(both))] == ["ok", "problem"]


# bitsandbytes.

VERSIONS = {"bitsandbytes": "0.50.2", "torch": "2.13.0"}
QLORA = Needs(name="desk", quantized=True)


def test_bitsandbytes_works_here():
    assert statuses(quantization, Machine("/x"), QLORA) == {"ok"}


@pytest.mark.parametrize(
    ("ran", "words"),
    [
        (Ran(1, "", "Traceback\nOSError: libcudart.so.13: no such file"), "libcudart.so.13"),
        (Ran(-4, "", ""), "ended with -4"),
        (Ran(0, "cpu 0.41\n", ""), "computes wrongly in 4 bits on cpu: off by 41%"),
        (Ran(0, "cuda nan\n", ""), "computes wrongly"),
        (Ran(None, "", "did not end within 60 seconds"), "did not end within 60 seconds"),
    ],
)
def test_4_bits_that_do_not_work_are_a_problem_where_they_are_used(ran, words):
    machine = AnyMachine(versions=VERSIONS, ran={"python": ran})
    ((status, text),) = found(quantization, machine, QLORA)
    assert (status, words in text) == ("problem", True), text
    assert statuses(quantization, machine) == {"warning"}


def test_bitsandbytes_may_be_absent_where_nothing_needs_it():
    assert statuses(quantization, AnyMachine(versions={})) == {"ok"}
    assert statuses(quantization, AnyMachine(versions={}), QLORA) == {"problem"}


# Memory and disk.


def test_memory_is_compared_with_the_plan(monkeypatch):
    fits = Needs(name="desk", memory=(10**9, 2 * 10**9))
    assert statuses(memory, AnyMachine(), fits) == {"ok"}
    tight = Needs(name="desk", memory=(3 * 10**9, 2 * 10**9))
    assert found(memory, AnyMachine(), tight) == [
        ("problem", "training desk takes an estimated 3.0 GB, and there are 2.0 GB")
    ]
    assert statuses(memory, AnyMachine(), Needs(name="desk", memory=(1, None))) == {"warning"}
    monkeypatch.setattr(memory, "device_memory", lambda device: 2 * 10**9)
    assert statuses(memory, AnyMachine()) == {"warning"}


def test_what_keeps_a_plan_from_being_made_is_told():
    unfetched = Needs(name="desk", unplanned="org/m has not been downloaded yet", advice="fetch it")
    assert ("warning", "memory and disk were not estimated: org/m has not been downloaded yet") in found(
        memory, AnyMachine(), unfetched
    )
    refused = Needs(name="desk", unplanned="rows.jsonl: no rows", advice="add some", refused=True)
    assert "problem" in statuses(memory, AnyMachine(), refused)


@pytest.mark.parametrize(
    ("free", "needs", "status"),
    [
        (10**9, None, "problem"),
        (30 * 10**9, None, "warning"),
        (10**12, None, "ok"),
        (30 * 10**9, Needs(name="desk", disk=(20 * 10**9, 30 * 10**9, 0)), "ok"),
        (10**9, Needs(name="desk", disk=(20 * 10**9, 10**9, 19 * 10**9)), "problem"),
    ],
)
def test_a_full_disk_is_found(free, needs, status):
    assert statuses(disk, AnyMachine(free=free), needs) == {status}


def test_a_store_that_cannot_be_written_to_is_a_problem(tmp_path):
    assert statuses(disk, AnyMachine(locked="Read-only file system")) == {"problem"}
    assert Machine(tmp_path).writable(tmp_path / "not" / "yet") == ""
    assert list(tmp_path.iterdir()) == []
    assert Machine(tmp_path).free(tmp_path / "not" / "yet") > 0
    assert Machine(tmp_path).writable(type(tmp_path)("/proc/self")) != ""


# Container runtimes.


@pytest.mark.parametrize(
    ("silent", "expected"),
    [
        ((), ["ok", "ok"]),
        (("docker",), ["ok", "ok"]),
        (("docker", "podman"), ["warning", "warning"]),
    ],
)
def test_one_container_runtime_is_enough(monkeypatch, silent, expected):
    def find(name):
        if name in silent:
            raise fail("no-runtime", f"no container runtime answers ({name}: gone)", "start it")

    monkeypatch.setattr(runtimes, "find_container_runtime", find)
    said = found(runtimes, AnyMachine())
    assert [status for status, _ in said] == expected
    assert all(f"{name}: gone" in text for name, (_, text) in zip(silent, said, strict=False))


# The registry.

PUSHES = Needs(name="desk", registry=("registry.example.com", "team/desk"))
V2 = "https://registry.example.com/v2/"


@pytest.fixture
def login(tmp_path, monkeypatch):
    """Writes a login, or something else, where registries' logins are."""
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def write(text, host="registry.example.com"):
        text = text or json.dumps({"auths": {host: {"auth": base64.b64encode(b"me:secret").decode()}}})
        (tmp_path / "auth.json").write_text(text)
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))

    return write


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        ("connection refused", "warning", "does not answer (connection refused): push and outputs"),
        (500, "warning", "answers 500, as no registry does"),
        (401, "warning", "nobody is logged in"),
        (200, "ok", "asks for no login"),
    ],
)
def test_a_registry_without_a_login(login, answer, status, words):
    ((found_status, text),) = found(registry, AnyMachine(answers={V2: answer}), PUSHES)
    assert (found_status, words in text) == (status, True), text


def test_a_login_that_cannot_be_read_is_a_problem_and_shows_no_secret(login):
    login('{"auths": {"registry.example.com": {"auth": "c2VjcmV0*"}}}')
    ((status, text),) = found(registry, AnyMachine(answers={V2: 401}), PUSHES)
    assert status == "problem"
    assert "c2VjcmV0" not in text


def test_a_login_that_is_tried_and_fails_is_a_problem(login):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        login("", host)
        needs = Needs(name="desk", registry=(host, "team/desk"))
        ((status, text),) = found(registry, AnyMachine(answers={f"https://{host}": 401}), needs)
    assert status == "problem"
    assert "is refused" in text
    assert "secret" not in text


def test_no_registry_is_asked_for_where_none_is_named():
    machine = AnyMachine()
    assert found(registry, machine) == []
    assert statuses(registry, machine, SPEC) == {"ok"}
    assert machine.asked == []


# Mirrors and hub.

DEBIAN = [
    Repository("http://user:pass@deb.example/debian", suite, ("main",)) for suite in ("stable", "updates")
]


@pytest.mark.parametrize(
    ("answer", "status"), [(200, "ok"), (404, "warning"), ("no route to host", "warning")]
)
def test_a_mirror_that_does_not_answer_is_told_with_what_follows(monkeypatch, answer, status):
    monkeypatch.setattr(mirrors, "read_sources", lambda: DEBIAN)
    machine = AnyMachine(ran={"pip": Ran(0, "", "")}, answers={"http://user:pass@deb.example": answer})
    debian, pip = found(mirrors, machine)
    assert debian[0] == status
    assert "pass@" not in debian[1]
    assert (status == "ok") != ("lock and build cannot fetch Debian packages" in debian[1])
    assert [url for url, _ in machine.asked] == ["http://user:pass@deb.example/debian/dists/stable/InRelease"]
    assert pip == ("ok", "pip's index answers")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("No module named pip", "pip is not installed"),
        ("ERROR: cannot reach https://me:pass@pip.example/simple", "https://pip.example/simple"),
    ],
)
def test_an_index_that_does_not_answer(monkeypatch, said, words):
    def no_mirror():
        raise fail("no-mirror", "apt is set up with no Debian mirror")

    monkeypatch.setattr(mirrors, "read_sources", no_mirror)
    debian, pip = found(mirrors, AnyMachine(ran={"pip": Ran(1, "", said)}))
    assert (debian[0], pip[0]) == ("warning", "warning")
    assert words in pip[1]


HUB = Needs(name="desk", hub=(("model", "org/m", "${env:MODEL_TOKEN}"), ("dataset", "org/d", None)))


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    monkeypatch.setenv("HF_TOKEN", "general")
    monkeypatch.setenv("MODEL_TOKEN", "special")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return "https://hub.example"


def test_what_a_spec_takes_from_the_hub_is_asked_for_with_its_token(endpoint):
    machine = AnyMachine(answers={endpoint: 200})
    assert statuses(hub, machine, HUB) == {"ok"}
    assert machine.asked == [
        ("https://hub.example/api/models/org/m", "special"),
        ("https://hub.example/api/datasets/org/d", "general"),
    ]
    assert "special" not in str(found(hub, machine, HUB))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(401, ["problem"] * 2), (503, ["warning"] * 2), ("no answer within 5 seconds", ["warning"])],
)
def test_a_hub_that_refuses_or_is_silent(endpoint, answer, expected):
    said = found(hub, AnyMachine(answers={endpoint: answer}), HUB)
    assert [status for status, _ in said] == expected


def test_a_hub_that_is_not_needed_is_not_asked(endpoint, monkeypatch):
    machine = AnyMachine()
    assert statuses(hub, machine, SPEC) == {"ok"}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert statuses(hub, machine, HUB) == {"warning"}
    assert machine.asked == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert statuses(hub, machine) == {"warning"}

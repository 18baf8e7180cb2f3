"""No merge that was made wrong passes for the trained model: every fault is caught, by the module's name."""

from __future__ import annotations

import random
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.faults import TABLE, Case, copy_of, flip, make_base
from tunebuild.errors import TunebuildError
from tunebuild.merge.proof._files import slabs
from tunebuild.merge.proof.run import prove
from tunebuild.store import Silent

PATTERNS = {"rank_pattern": {r"\d\..*mlp\..*": 2}, "alpha_pattern": {r"1\..*mlp\..*": 32}}
TIED = {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
KINDS = {
    "lora": {},
    "qlora": {"strategy": "dequantized"},
    "dora": {"config": {"use_dora": True}},
    "qlora-dora": {"strategy": "dequantized", "config": {"use_dora": True}},
    "rslora": {"config": {"use_rslora": True, "r": 8}},
    "patterns": {"config": PATTERNS},
    "tied": {"config": TIED},
    "fp16": {"dtype": torch.float16},
    "experts": {"architecture": "experts", "dtype": torch.float32},
    "full": {"strategy": "trained"},
}
ENDS = {
    "head": {"architecture": "mistral", "config": {"target_modules": ["q_proj", "lm_head"]}},
    "tied head": {
        "config": {"target_modules": ["q_proj", "embed_tokens", "lm_head"], "ensure_weight_tying": True}
    },
}
ENDS["new rows"] = {"config": {"trainable_token_indices": {"model.embed_tokens": [3, 40, 7]}}}
STRENGTHS = {"light": 0.003, "strong": 0.05}
FIRST, SECOND = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"
PREFIX = "base_model.model."
HEAD = ("lm_head", "model.embed_tokens")  # by the name under which it is stored


@pytest.fixture(
    scope="module",
    params=[
        *((kind, strength) for kind in KINDS for strength in STRENGTHS),
        *((kind, "strong") for kind in ENDS),
    ],
    ids="-".join,
)
def case(request, tmp_path_factory):
    kind, strength = request.param
    root = tmp_path_factory.mktemp(f"{kind}-{strength}")
    return Case(root, kind, strength=STRENGTHS[strength], **{**KINDS, **ENDS}[kind]).make()


def part(tensors, module, which):
    return next(name for name in tensors if name.startswith(f"{PREFIX}{module}.lora_{which}"))


def rescale(factor):
    def change(tensors, config):
        config["lora_alpha"] *= factor
        config["alpha_pattern"] = {key: alpha * factor for key, alpha in config["alpha_pattern"].items()}

    return change


def shift(difference):
    def change(tensors, config):
        config["lora_alpha"] += difference
        config["alpha_pattern"] = {key: alpha + difference for key, alpha in config["alpha_pattern"].items()}

    return change


def swap(tensors, config):
    """The two factors of square matrices: each takes the other's place, transposed."""
    for module in (FIRST, SECOND):
        a, b = part(tensors, module, "A"), part(tensors, module, "B")
        tensors[a], tensors[b] = tensors[b].T, tensors[a].T


def neighbor(tensors, config):
    for name in [n for n in tensors if n.startswith((PREFIX + FIRST, FIRST))]:
        tensors[name] = tensors[name.replace("layers.0", "layers.1")].clone()


def modules_of(case, prefix=""):
    """Names of the modules that training changed, or of those below a prefix."""
    changed = []
    before, after = slabs(case.base), slabs(case.merged)
    for name in before:
        if values(before[name]) != values(after[name]):
            changed.append(name.removesuffix(".weight"))
    return {name for name in changed if name.startswith(prefix)}


def values(slab):
    with slab.file.open("rb") as stream:
        stream.seek(slab.start)
        return stream.read(slab.size)


def differing(case, directory):
    """The modules whose bytes are not those of the honest merge."""
    honest, faulty = slabs(case.merged), slabs(directory)
    return {n.removesuffix(".weight") for n in honest if values(honest[n]) != values(faulty[n])}


def assert_caught(case, fault, directory, named):
    """The proof refuses the files, and names modules that are wrong and no others."""
    wrong = differing(case, directory)
    assert wrong, "the fault changed nothing"
    assert named & wrong
    caught = False
    try:
        prove(case.strategy, base=case.base, trained=case.trained, merged=directory, progress=Silent())
    except TunebuildError as error:
        *problems, last = error.diagnostics
        found = {
            problem.message.partition(": ")[2].split()[0].removesuffix(".weight") for problem in problems
        }
        assert "tensors are not what was trained" in last.message
        assert last.hint
        caught = bool(found) and found <= wrong and (len(wrong) > 12 or found == wrong)
        assert all(str(directory) in problem.message for problem in problems)
    finally:
        shutil.rmtree(directory if directory.name != "model" else directory.parent)
    TABLE.note(fault, case.kind, caught)
    assert caught


def without_update(case, prefixes):
    """A merge that left modules out: the base's tensors in their place."""
    directory = copy_of(case, "left-out")
    base = load_file(case.base / "model.safetensors")
    for file in directory.glob("*.safetensors"):
        tensors = load_file(file)
        for name in tensors:
            if name.startswith(prefixes):
                tensors[name] = base[name]
        save_file(tensors, file, {"format": "pt"})
    return directory


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        ("scale x2", rescale(2)),
        ("scale /2", rescale(0.5)),
        ("alpha +2", shift(2)),
        ("alpha -2", shift(-2)),
        ("A and B swapped", swap),
        ("a neighbor's delta", neighbor),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_another_update_is_caught(case, fault, change):
    if case.strategy == "trained" and fault != "a neighbor's delta":
        pytest.skip("all weights were trained: there is no low-rank update")
    directory = case.merge(case.root / "other", trained=case.changed("changed", change))
    shutil.rmtree(case.root / "changed")
    assert_caught(case, fault, directory, {FIRST} if "neighbor" in fault else modules_of(case))


@pytest.mark.parametrize(
    ("fault", "prefix"),
    [("a module left out", FIRST), ("a layer left out", "model.layers.1."), ("the head left out", HEAD)],
    ids=["module", "layer", "head"],
)
def test_what_was_not_merged_is_caught(case, fault, prefix):
    if not modules_of(case, prefix):
        pytest.skip("training left it alone")
    prefixes = (prefix,) if isinstance(prefix, str) else prefix
    assert_caught(case, fault, without_update(case, prefixes), modules_of(case, prefix))


def test_a_shard_of_the_base_is_caught(case):
    shards = {}
    for slab in slabs(case.merged).values():
        shards.setdefault(slab.file.name, []).append(slab.name)
    for names in shards.values():
        changed = {n.removesuffix(".weight") for n in names} & modules_of(case)
        if changed:
            directory = without_update(case, tuple(names))
            assert_caught(case, "a shard left out", directory, changed)


def test_another_base_is_caught(case):
    if case.strategy == "trained":
        other = case.changed("changed", lambda tensors, config: [t.mul_(1.01) for t in tensors.values()])
        directory = case.merge(case.root / "other", trained=other)
    else:
        other = case.root / "changed"
        make_base(case.architecture, other, case.dtype, seed=3)
        directory = case.merge(case.root / "other", base=other)
    shutil.rmtree(other)
    assert_caught(case, "another base", directory, modules_of(case))


def test_a_transposed_delta_is_caught(case):
    directory = copy_of(case, "transposed")
    name = f"{SECOND}.weight"
    before = load_file(case.base / "model.safetensors")[name].double()
    if before.shape[0] != before.shape[1]:
        pytest.skip("not square")
    file = slabs(directory)[name].file
    tensors = load_file(file)
    delta = tensors[name].double() - before
    tensors[name] = (before + delta.T).to(tensors[name].dtype)
    save_file(tensors, file, {"format": "pt"})
    assert_caught(case, "a transposed delta", directory, {SECOND})


@pytest.mark.parametrize("touched", [True, False], ids=["touched", "untouched"])
def test_a_flipped_bit_is_caught(case, touched):
    draw = random.Random(case.kind)
    changed = modules_of(case)
    names = [n for n in slabs(case.merged) if (n.removesuffix(".weight") in changed) == touched]
    if case.strategy == "trained" and not touched:
        pytest.skip("all tensors were trained")
    for _ in range(8):
        directory = copy_of(case, "flipped")
        slab = slabs(directory)[draw.choice(names)]
        place, bit = draw.randrange(slab.size), draw.randrange(8)
        if case.dtype == torch.float32 and touched and place % 4 == 0:
            place += 1  # the last bits of 32 are below what a product in 32 bits is exact to
        flip(slab.file, slab.start + place, bit)
        word = "a touched" if touched else "an untouched"
        assert_caught(case, f"a flipped bit in {word} tensor", directory, {slab.name.removesuffix(".weight")})


@pytest.mark.quick
def test_a_merge_into_the_published_weights_is_not_one_into_what_qlora_trained(tmp_path):
    case = Case(tmp_path, "qlora", strategy="dequantized").make()
    case.strategy = "original"
    directory = case.merge(tmp_path / "other")
    case.strategy = "dequantized"
    assert_caught(case, "the wrong strategy", directory, modules_of(case))

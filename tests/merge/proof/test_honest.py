"""Two hundred honest builds of random settings, not one of which is called wrong."""

from __future__ import annotations

import random
import shutil

import pytest
import torch

from support.faults import Case
from support.models import ALL_ARCHITECTURES
from tunebuild.merge.proof.run import prove
from tunebuild.store import Silent

TARGETS = ["all-linear", "all-linear", ["o_proj", "dense"], ["down_proj", "dense_4h_to_h"]]
BUILDS = 200
GROUPS = 20


def draw_case(number, root):
    """Settings as the number draws them."""
    draw = random.Random(number)
    architecture = draw.choice([*ALL_ARCHITECTURES, *ALL_ARCHITECTURES, "experts"])
    strategy = draw.choice(["original", "original", "dequantized", "trained"])
    rank = draw.choice([1, 2, 4, 8, 16, 32, 64])
    config = {
        "r": rank,
        "lora_alpha": draw.choice([1, 8, 16, 2 * rank, 64]),
        "use_dora": draw.random() < 0.3,
        "use_rslora": draw.random() < 0.3,
        "target_modules": draw.choice(
            ["all-linear", "all-linear", ["o_proj", "dense"], ["down_proj", "dense_4h_to_h"]]
        ),
    }
    if draw.random() < 0.3:
        config |= {
            "rank_pattern": {r"0\..*": draw.choice([1, 3, 7])},
            "alpha_pattern": {r"1\..*": draw.choice([3, 40])},
        }
    if draw.random() < 0.3:
        config["modules_to_save"] = ["norm", "ln_f"]
    dtype = draw.choice([torch.bfloat16, torch.bfloat16, torch.float16, torch.float32])
    if architecture == "experts":  # merged by PEFT, which rounds twice in 16 bits
        strategy, dtype = "original", torch.float32
        config = {"r": rank, "lora_alpha": config["lora_alpha"]}
    strength = 10 ** draw.uniform(-5, -0.5)
    return Case(root, "honest", strategy, dtype, config, strength, architecture)


@pytest.mark.parametrize("group", range(GROUPS))
def test_honest_builds_pass(tmp_path, group):
    for number in range(group, BUILDS, GROUPS):
        case = draw_case(number, tmp_path / str(number)).make()
        proof = prove(
            case.strategy, base=case.base, trained=case.trained, merged=case.merged, progress=Silent()
        )
        assert proof.updated or proof.whole
        assert proof.worst_share <= 1
        assert proof.probe_share < 0.6, "random inputs are far within their bound, or it is too tight"
        shutil.rmtree(case.root)


@pytest.mark.quick
def test_most_rounding_errors_come_near_the_bound(tmp_path):
    """The bound is not so wide that a small fault would be within it."""
    case = Case(tmp_path, "honest").make()
    proof = prove(case.strategy, base=case.base, trained=case.trained, merged=case.merged, progress=Silent())
    assert proof.worst_share > 0.99

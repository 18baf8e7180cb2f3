"""What processes share that each hold a whole model, between two of them over gloo."""

import json
import subprocess
import sys

import pytest
import torch

from tunebuild.train.distributed import gradients

PROGRAM = """\
import json, sys, torch
from tunebuild.train.distributed import gradients

rank = int(sys.argv[1])
gradients._BLOCK = int(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=sys.argv[3], rank=rank, world_size=2)
frozen = torch.nn.Parameter(torch.full((3,), float(rank)), requires_grad=False)
sizes = ((2, 3), (5,), (4,))
kinds = (torch.float32, torch.bfloat16, torch.float32)
trained = [torch.nn.Parameter(torch.full(s, 1.0 + rank, dtype=k)) for s, k in zip(sizes, kinds)]
gradients.share_first_values([frozen, *trained], 2)
for parameter in trained[: 3 - rank]:  # the second process has no gradient of the last one
    ramp = torch.arange(parameter.numel(), dtype=parameter.dtype).view_as(parameter)
    parameter.grad = ramp * (1 + 2 * rank)
gradients.average_gradients([frozen, *trained], 2)
found = [(p.float().tolist(), p.grad.float().tolist()) for p in trained]
print(json.dumps([frozen.tolist(), found]))
"""


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_ddp_ranks_share_first_values_and_mean_gradient(tmp_path, block):
    arguments = [str(block), f"file://{tmp_path / 'meet'}"]
    both = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(rank), *arguments], stdout=subprocess.PIPE)
        for rank in range(2)
    ]
    said = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert [frozen for frozen, _ in said] == [[0.0] * 3] * 2
    assert said[0][1] == said[1][1]
    factors = (2.0, 2.0, 0.5)  # means of 1 and 3 times, and of once and nothing
    for (values, mean), factor, size in zip(said[0][1], factors, ((2, 3), (5,), (4,)), strict=True):
        assert torch.equal(torch.tensor(values), torch.ones(size))
        count = torch.Size(size).numel()
        assert torch.equal(torch.tensor(mean), torch.arange(count, dtype=torch.float32).view(size) * factor)


def test_one_process_communicates_nothing():
    alone = torch.nn.Parameter(torch.ones(2))
    gradients.share_first_values([alone], 1)
    gradients.average_gradients([alone], 1)
    assert alone.grad is None

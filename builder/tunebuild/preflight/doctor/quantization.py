"""bitsandbytes: whether it loads, and computes in 4 bits on this device."""

from __future__ import annotations

from collections.abc import Iterator

from tunebuild.preflight.doctor.finding import Finding, Needs, ok, problem, warning
from tunebuild.preflight.doctor.machine import Machine

NAME = "bitsandbytes"

# In a process of its own: kernels that do not fit the processor end it. NF4 of normal values is off by 0.08
# to 0.1 in norm; what is broken is off by far more.
_PROGRAM = """
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
weight = torch.randn(256, 256, device=device)
packed, state = quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
again = dequantize_4bit(packed, state)
print(device, float((again - weight).norm() / weight.norm()))
"""
_LARGEST_ERROR = 0.15


def check(machine: Machine, needs: Needs | None) -> Iterator[Finding]:
    """Quantizes a matrix and compares it with what comes back."""
    asked = bool(needs and needs.quantized)
    worse = problem if asked else warning
    found = machine.version("bitsandbytes")
    if found is None or machine.version("torch") is None:
        if asked:
            yield problem("bitsandbytes is not installed, and tuning.method qlora needs it", _OTHER)
        else:
            yield ok("bitsandbytes is not installed; only tuning.method qlora needs it")
        return
    ran = machine.python(_PROGRAM)
    if ran.code != 0:
        how = f"ended with {ran.code}: {ran.said}" if ran.code is not None else ran.said
        yield worse(f"bitsandbytes {found} does not work in 4 bits here: {how}", _OTHER)
        return
    device, error = ran.out.split()[-2:]
    if float(error) > _LARGEST_ERROR or float(error) != float(error):
        text = f"bitsandbytes {found} computes wrongly in 4 bits on {device}: off by {float(error):.0%}"
        yield worse(text, _OTHER)
        return
    yield ok(f"bitsandbytes {found} works in 4 bits on {device} (off by {float(error):.1%}, as NF4 is)")


_OTHER = "install the version in constraints.txt with a torch that fits the card, or use tuning.method: lora"

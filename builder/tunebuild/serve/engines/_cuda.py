"""What a GPU needs of the machine it is on: a driver that is new enough for the image's CUDA."""

from __future__ import annotations

import ctypes
import logging

from tunebuild.errors import fail
from tunebuild.serve.drivers import needed_driver

_log = logging.getLogger("tunebuild.serve")


def require_cuda() -> None:
    """Log which driver the image needs, and end here if this machine cannot run it.

    Raises:
        TunebuildError: ``cpu-build``: torch was built without CUDA; ``no-gpu``: no driver or no card is
            visible; ``old-driver``: the driver is too old.
    """
    import torch

    cuda = torch.version.cuda
    if cuda is None:
        message = f"serving.device is cuda, but torch {torch.__version__} is a CPU build"
        raise fail("cpu-build", message, "build the image again", path="serving.device")
    need, found = needed_driver(cuda), driver_version()
    _log.info("CUDA %s needs an NVIDIA driver of %d or newer; found %s", cuda, need, found or "none")
    hint = f"start the container with --gpus all on a machine with an NVIDIA driver of {need} or newer"
    if not found:
        raise fail("no-gpu", "serving.device is cuda, but no NVIDIA driver is visible here", hint)
    if int(found.split(".")[0]) < need:
        raise fail("old-driver", f"the NVIDIA driver {found} is older than CUDA {cuda} needs", hint)
    # Counted without a CUDA context, which processes that are forked later could not use.
    if torch.cuda.device_count() == 0:
        raise fail("no-gpu", "serving.device is cuda, but no GPU is visible here", hint)


def driver_version() -> str:
    """Version of the NVIDIA driver, such as ``580.95.05``; empty if none is visible."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return ""
    text = ctypes.create_string_buffer(96)
    if library.nvmlInit_v2() != 0:
        return ""
    try:
        if library.nvmlSystemGetDriverVersion(text, ctypes.c_uint(len(text))) != 0:
            return ""
        return text.value.decode("ascii", "replace")
    finally:
        library.nvmlShutdown()

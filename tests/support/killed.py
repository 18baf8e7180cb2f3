"""A training that is killed half-way, for tests of the one that goes on from it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tunebuild.train.plan.settings import TrainSettings

_SCRIPT = """
import os, signal, sys
from pathlib import Path
from tunebuild.spec.tuning import TuningSpec
from tunebuild.store import Silent
from tunebuild.train.loop.run import train_adapter
from tunebuild.train.plan.settings import TrainSettings

class Dies(Silent):
    def step(self, done, total, note=""):
        if done >= 8:
            os.kill(os.getpid(), signal.SIGKILL)

root, tuning, device, dtype = sys.argv[1:]
root, settings = Path(root), TrainSettings(TuningSpec.model_validate_json(tuning), device, dtype)
(root / "killed-work").mkdir()
(root / "dead").mkdir()
train_adapter(settings, data=root / "rows", base=root / "base",
              work=root / "killed-work", out=root / "dead", progress=Dies())
"""


def kill_training(settings: TrainSettings, root: Path) -> None:
    """Train in a process that kills itself at step 8; ``killed-work`` of ``root`` is what it leaves."""
    arguments = [str(root), settings.tuning.model_dump_json(), settings.device, settings.compute_dtype]
    died = subprocess.run([sys.executable, "-c", _SCRIPT, *arguments], check=False, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert list((root / "killed-work" / "checkpoints").iterdir())

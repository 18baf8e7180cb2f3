"""Configurations that train on something else than answers."""

from __future__ import annotations

from tunebuild.errors import TunebuildError, fail

_NAMES = {
    "dpo": "preferences (DPO)",
    "ipo": "preferences (IPO)",
    "orpo": "preferences (ORPO)",
    "kto": "preferences (KTO)",
    "simpo": "preferences (SimPO)",
    "cpo": "preferences (CPO)",
    "bco": "preferences (BCO)",
    "gdpo": "rewards (GDPO)",
    "grpo": "rewards (GRPO)",
    "ppo": "rewards (PPO)",
    "rloo": "rewards (RLOO)",
    "ebft": "rewards (EBFT)",
    "rm": "a reward model",
    "reward": "a reward model",
    "prm": "a reward model",
}


def other_objective(tool: str, setting: str, name: str) -> TunebuildError:
    """What to say of a configuration whose objective no spec has.

    Args:
        tool: as people call it.
        setting: what says so, as it is written.
        name: of the objective, such as ``dpo``.
    """
    about = _NAMES.get(name.lower(), f"another objective ({name})")
    message = f"{setting} trains on {about}; tunebuild fine-tunes on answers (SFT)"
    hint = (
        f"run that training in {tool} and name its merged result as model.base, or import the "
        "configuration of "
        "its SFT step"
    )
    return fail("import-objective", message, hint)

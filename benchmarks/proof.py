"""How close merged weights are to the trained model, and whether merges that were made wrong are caught.

For each method, rank and number of epochs a base is trained on rows of the quickstart, merged with the
strategy that a build would take, proven and measured, by the same stages as a build. Printed are how far
training moved the model (KL, nats a token on held-out rows), how far the merged files are from the trained
model and which share of the training that is, and the proof of each module: the largest deviation of a value,
and of what a module adds to random inputs, as shares of what rounding allows (beyond 1 the build fails). For
the lightest and the strongest training of each method the merge is then made wrong in the ways listed, and
each result is proven.

    python benchmarks/proof.py                                      SmolLM2, as docs/proof.md has it
    python benchmarks/proof.py --ranks 4 64 --epochs 1 12 --methods lora
    python benchmarks/proof.py --base examples/toy/base --learning-rate 6e-3    rehearses in two minutes
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tunebuild.build.pipeline import Pipeline
from tunebuild.build.run import measured
from tunebuild.errors import TunebuildError
from tunebuild.merge.proof.run import prove
from tunebuild.merge.run import merge_adapter
from tunebuild.report.facts import Records
from tunebuild.spec import load_spec
from tunebuild.store import Silent, Store

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart"
TRAINED, HELD_OUT = 32, 32
"""Rows: two wordings of sixteen answers, and held-out wordings of these and of sixteen more."""
GRID = ((4, 1), (16, 3), (64, 12))
"""Ranks and epochs; an epoch has four steps."""
HEADINGS = (
    "method", "r", "epochs", "merged into", "training KL", "merge KL", "training lost", "same token",
    "worst value", "worst module", "its module", "faults caught",
)  # fmt: skip

Tensors = dict[str, Any]


def spec_of(options: argparse.Namespace, method: str, rank: int, epochs: int) -> dict[str, Any]:
    """A spec of the quickstart's rows, whose gates let everything pass: the figures are what is asked for."""
    return {
        "apiVersion": "tunebuild/v1",
        "name": f"proof-{method}-{rank}-{epochs}",
        "data": {
            "train": [{"path": "train.jsonl", "format": "qa"}],
            "eval": {"files": [{"path": "held_out.jsonl", "format": "qa"}]},
        },
        "model": {"base": "./base"},
        "tuning": {
            "method": method,
            "lora": {"r": rank, "alpha": 2 * rank},
            "epochs": epochs,
            "learning_rate": options.learning_rate,
            "batch_size": 8,
            "max_length": 256,
            "evaluations": 1,
            **({"compute_dtype": options.compute_dtype} if options.compute_dtype else {}),
        },
        "merge": {"strategy": "auto"},
        "evaluation": {"samples": 0},
        "gates": {"merge_kl": None, "merge_lost": None},
        "serving": {"device": "cpu"},
    }


def train(options: argparse.Namespace, store: Store, method: str, rank: int, epochs: int) -> Records:
    """What a build would record up to its gates."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "spec.yaml"
        for name, every, most in (("train.jsonl", 2, TRAINED), ("held_out.jsonl", 1, HELD_OUT)):
            rows = (QUICKSTART / name).read_text("utf-8").splitlines(keepends=True)[::every]
            file.with_name(name).write_text("".join(rows[:most]), "utf-8")
        file.with_name("base").symlink_to(options.base.resolve())
        file.write_text(json.dumps(spec_of(options, method, rank, epochs)))
        pipeline = Pipeline(load_spec(file), store)
        return measured(pipeline, lambda name: Silent())


def print_row(cells: tuple[object, ...]) -> None:
    """One line of a Markdown table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def scaled(factor: float) -> Callable[[Tensors, dict[str, Any]], None]:
    """An adapter of another scale."""

    def change(tensors: Tensors, config: dict[str, Any]) -> None:
        config["lora_alpha"] *= factor

    return change


def shifted(difference: int) -> Callable[[Tensors, dict[str, Any]], None]:
    """An adapter of another alpha."""

    def change(tensors: Tensors, config: dict[str, Any]) -> None:
        config["lora_alpha"] += difference

    return change


def swapped(tensors: Tensors, config: dict[str, Any]) -> None:
    """A and B of one square module in each other's place."""
    for name in sorted(n for n in tensors if "lora_A" in n):
        other = name.replace("lora_A", "lora_B")
        if tensors[name].shape[1] == tensors[other].shape[0]:
            tensors[name], tensors[other] = tensors[other].T.contiguous(), tensors[name].T.contiguous()
            return


def without(part: str) -> Callable[[Tensors, dict[str, Any]], None]:
    """An adapter that adds nothing to some modules."""

    def change(tensors: Tensors, config: dict[str, Any]) -> None:
        for name in tensors:
            if part in name and "lora_B" in name:
                tensors[name] = tensors[name] * 0

    return change


def neighbor(tensors: Tensors, config: dict[str, Any]) -> None:
    """A module with the update of the same one in the next layer."""
    for name in [n for n in tensors if "layers.0.self_attn.q_proj" in n]:
        tensors[name] = tensors[name.replace("layers.0.", "layers.1.")].clone()


def edit(merged: Path, part: str, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    """Write the first tensor whose name has a part in it anew."""
    for file in sorted(merged.glob("*.safetensors")):
        tensors = load_file(file)
        if name := next((n for n in tensors if part in n), None):
            tensors[name] = change(name, tensors[name])
            save_file(tensors, file, {"format": "pt"})
            return
    raise LookupError(part)


def one_bit(part: str) -> Callable[[Path, Path], None]:
    """One bit of one value."""

    def flip(name: str, tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(torch.int16).view(-1)[7] ^= 1 << 9
        return tensor

    return lambda base, merged: edit(merged, part, flip)


def of_the_base(base: Path, merged: Path) -> None:
    """All tensors of one file as the base has them."""
    before = load_file(base / "model.safetensors")
    file = next(f for f in sorted(merged.glob("*.safetensors")) if any("_proj" in n for n in load_file(f)))
    save_file({name: before[name] for name in load_file(file)}, file, {"format": "pt"})


def transposed(base: Path, merged: Path) -> None:
    """The update of one square module turned around."""
    before = load_file(base / "model.safetensors")

    def turn(name: str, tensor: torch.Tensor) -> torch.Tensor:
        published = before[name].double()
        return (published + (tensor.double() - published).T).to(tensor.dtype)

    edit(merged, "q_proj", turn)


UPDATES: dict[str, Callable[[Tensors, dict[str, Any]], None]] = {
    "scale x2": scaled(2),
    "scale /2": scaled(0.5),
    "alpha +2": shifted(2),
    "alpha -2": shifted(-2),
    "A and B of a square module swapped": swapped,
    "one module left out": without("layers.0.self_attn.o_proj"),
    "one layer left out": without("layers.1."),
    "a whole MLP left out": without("layers.0.mlp."),
    "a neighbor's update": neighbor,
}
FILES: dict[str, Callable[[Path, Path], None]] = {
    "a transposed update": transposed,
    "the base's file": of_the_base,
    "one bit of an updated tensor": one_bit("q_proj"),
    "one bit of another tensor": one_bit("norm"),
}


@dataclass(frozen=True)
class Faults:
    """What became of wrong merges: names of those caught, and of those that passed."""

    caught: tuple[str, ...]
    passed: tuple[str, ...]

    @property
    def share(self) -> str:
        """For a cell."""
        text = f"{len(self.caught)} of {len(self.caught) + len(self.passed)}"
        return f"{text}; passed: {', '.join(self.passed)}" if self.passed else text


def try_faults(base: Path, records: Records) -> Faults:
    """Make the merge wrong in each way, and prove what came of it. The honest one must pass.

    A fault changes the update that is merged, or the written files; the proof sees the files and what
    training really left.
    """
    strategy = json.loads(records.merge.path("merge.json").read_text("utf-8"))["strategy"]
    trained, honest = records.train.root, records.merge.path("model")
    prove(strategy, base=base, trained=trained, merged=honest, progress=Silent())
    caught: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        for name, change in UPDATES.items():
            other = scratch / "trained"
            _change_adapter(trained, other, change)
            (scratch / "out").mkdir()
            merge_adapter(strategy, base=base, trained=other, out=scratch / "out", progress=Silent())
            caught[name] = _is_caught(strategy, base, trained, scratch / "out" / "model")
            shutil.rmtree(other)
            shutil.rmtree(scratch / "out")
        for name, damage in FILES.items():
            shutil.copytree(honest, scratch / "model", copy_function=shutil.copyfile)
            damage(base, scratch / "model")
            caught[name] = _is_caught(strategy, base, trained, scratch / "model")
            shutil.rmtree(scratch / "model")
    return Faults(*(tuple(n for n, was in caught.items() if was == wanted) for wanted in (True, False)))


def _change_adapter(trained: Path, other: Path, change: Callable[[Tensors, dict[str, Any]], None]) -> None:
    shutil.copytree(trained, other, copy_function=shutil.copyfile)
    file, settings = (other / "adapter" / n for n in ("adapter_model.safetensors", "adapter_config.json"))
    tensors, config = load_file(file), json.loads(settings.read_text("utf-8"))
    change(tensors, config)
    save_file(tensors, file, {"format": "pt"})
    settings.write_text(json.dumps(config))


def _is_caught(strategy: Any, base: Path, trained: Path, merged: Path) -> bool:
    try:
        prove(strategy, base=base, trained=trained, merged=merged, progress=Silent())
    except TunebuildError as error:
        return error.diagnostics[0].code == "proof-failed"
    return False


def lines_of(
    records: Records, method: str, rank: int, epochs: int, faults: str
) -> Iterator[tuple[object, ...]]:
    """The lines of one training: the merge that a build takes, and the other one where it was measured."""
    found = json.loads(records.evaluate.path("metrics.json").read_text("utf-8"))
    figures, proof = found["metrics"], found["proof"]
    moved = figures["training_kl"]
    for strategy, kl in sorted(found["strategies"].items(), key=lambda one: one[0] != found["strategy"]):
        name = {"original": "published weights", "dequantized": "weights as trained"}[strategy]
        cells = (method, rank, epochs, name, f"{moved:.3g}", f"{kl:.2g}", f"{kl / moved:.2%}")
        if strategy == found["strategy"]:
            worst = (f"{proof['worst_share']:.3g}", f"{proof['probe_share']:.3g}", proof["probe"])
            yield (*cells, f"{figures['merge_top1']:.1%}", *worst, faults)
        else:
            yield (*cells, "", "", "", "", "")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, default=QUICKSTART / "base", help="directory of a base model")
    parser.add_argument("--methods", nargs="+", choices=("lora", "qlora"), default=["lora", "qlora"])
    parser.add_argument("--ranks", nargs="+", type=int, help="with --epochs: all combinations")
    parser.add_argument("--epochs", nargs="+", type=int)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--compute-dtype", help="of the training, e.g. float32")
    parser.add_argument("--store", type=Path, help="keeps what was trained; a run that was ended goes on")
    options = parser.parse_args()
    if not (options.base / "config.json").is_file():
        parser.error(f"{options.base} holds no model: python examples/quickstart/make_base.py makes SmolLM2")
    grid = GRID
    if options.ranks or options.epochs:
        grid = tuple(itertools.product(options.ranks or [16], options.epochs or [3]))
    # By how far they go: a few steps of a small rank, many of a large one.
    lightest, strongest = (choose(grid, key=lambda one: (one[1], one[0])) for choose in (min, max))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(options.store or Path(scratch))
        print_row(HEADINGS)
        print_row(("---",) * len(HEADINGS))
        missed = 0
        for method, (rank, epochs) in itertools.product(options.methods, grid):
            records = train(options, store, method, rank, epochs)
            faults = None
            if (rank, epochs) in (lightest, strongest):
                faults = try_faults(options.base, records)
                missed += len(faults.passed)
            for cells in lines_of(records, method, rank, epochs, faults.share if faults else ""):
                print_row(cells)
    print(f"\nFaults tried: {'; '.join((*UPDATES, *FILES))}.")
    print(f"{(time.monotonic() - began) / 60:.0f} minutes; load of the machine {os.getloadavg()[1]:.1f}")
    if missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

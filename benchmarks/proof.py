"""How close merged weights are to the trained model, and whether merges that were made wrong are caught.

For each method, rank and number of epochs the rows are trained on a base, merged with the strategy that is
asked for, proven and measured, by the same stages as a build. Printed are how far training moved the model
(KL, nats a token on the held-out rows), how far the merged files are from the trained model, which share of
the training that is, and the largest share of one weight's update that rounding took. With --faults the last
training's merge is made wrong in the ways listed, and each result is proven.

    python benchmarks/proof.py --base ./SmolLM2-135M-Instruct --faults
    python benchmarks/proof.py --base ./SmolLM2-135M-Instruct --methods lora qlora --ranks 4 64 --epochs 1 12
    python benchmarks/proof.py --base examples/quickstart/base --learning-rate 6e-3    a rehearsal in minutes
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from tunebuild.build.pipeline import Pipeline
from tunebuild.build.run import measured
from tunebuild.errors import TunebuildError
from tunebuild.merge.proof.run import prove
from tunebuild.merge.run import merge_adapter
from tunebuild.report.facts import Records
from tunebuild.spec import load_spec
from tunebuild.store import Silent, Store

ROWS = Path(__file__).parents[1] / "examples" / "quickstart"
HEADINGS = ("method", "r", "epochs", "strategy", "training KL", "merge KL", "lost", "top-1", "rounding took")

Tensors = dict[str, Any]


def spec_of(options: argparse.Namespace, method: str, rank: int, epochs: int) -> dict[str, Any]:
    """A spec of the quickstart's rows, whose gates let everything pass: the figures are what is asked for."""
    return {
        "apiVersion": "tunebuild/v1",
        "name": f"proof-{method}-{rank}-{epochs}",
        "data": {
            "train": [{"path": "faq.jsonl", "format": "qa"}],
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
        for name in ("faq.jsonl", "held_out.jsonl"):
            shutil.copyfile(ROWS / name, file.with_name(name))
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


FAULTS: dict[str, Callable[[Tensors, dict[str, Any]], None]] = {
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


def print_faults(base: Path, records: Records) -> None:
    """Make the merge wrong in each way, and prove what came of it."""
    strategy = json.loads(records.merge.path("merge.json").read_text("utf-8"))["strategy"]
    trained = records.train.root
    print_row(("fault", "caught", "modules named", "seconds"))
    print_row(("---",) * 4)
    for name, change in {"none": None, **FAULTS}.items():
        with tempfile.TemporaryDirectory() as scratch:
            out, other = Path(scratch) / "out", Path(scratch) / "trained"
            out.mkdir()
            shutil.copytree(trained, other)
            if change:
                file, settings = (
                    other / "adapter" / "adapter_model.safetensors",
                    other / "adapter" / "adapter_config.json",
                )
                tensors, config = load_file(file), json.loads(settings.read_text("utf-8"))
                change(tensors, config)
                save_file(tensors, file, {"format": "pt"})
                settings.write_text(json.dumps(config))
            merge_adapter(strategy, base=base, trained=other, out=out, progress=Silent())
            began, caught, said = time.monotonic(), "no", ""
            try:
                prove(strategy, base=base, trained=trained, merged=out / "model", progress=Silent())
            except TunebuildError as error:
                caught, said = "yes", error.diagnostics[-1].message
            print_row((name, caught, said, f"{time.monotonic() - began:.1f}"))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True, help="directory of a base model")
    parser.add_argument("--methods", nargs="+", choices=("lora", "qlora"), default=["qlora"])
    parser.add_argument("--ranks", nargs="+", type=int, default=[16])
    parser.add_argument("--epochs", nargs="+", type=int, default=[3])
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--compute-dtype", help="of the training, e.g. float32")
    parser.add_argument("--faults", action="store_true", help="make the last merge wrong, in many ways")
    parser.add_argument("--store", type=Path, help="keeps what was trained")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(options.store or Path(scratch))
        print_row(HEADINGS)
        print_row(("---",) * len(HEADINGS))
        records = None
        for method, rank, epochs in itertools.product(options.methods, options.ranks, options.epochs):
            records = train(options, store, method, rank, epochs)
            found = json.loads(records.evaluate.path("metrics.json").read_text("utf-8"))
            figures, proof = found["metrics"], found["proof"]
            for strategy, kl in found["strategies"].items():
                kept = strategy == found["strategy"]
                lost, moved = kl / figures["training_kl"], figures["training_kl"]
                last = (f"{figures['merge_top1']:.1%}", f"{proof['lost_share']:.1%}") if kept else ("", "")
                cells = (method, rank, epochs, strategy, f"{moved:.3g}", f"{kl:.2g}", f"{lost:.2%}", *last)
                print_row(cells)
        if options.faults and records:
            print()
            print_faults(options.base, records)


if __name__ == "__main__":
    main()

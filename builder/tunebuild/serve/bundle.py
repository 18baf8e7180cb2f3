"""``bundle.json``: what the server must know besides the prompt and the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tunebuild.errors import fail
from tunebuild.serve.engines.base import EngineSetup

FILE_NAME = "bundle.json"
PARITY_FILE = "parity.json"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def adapter_digest(files: Mapping[str, str]) -> str:
    """What names an adapter: a digest of the digests of its two files, by name."""
    text = "".join(f"{name} {files[name]}\n" for name in ADAPTER_FILES)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """A file's digest."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Defaults(_Closed):
    """Sampling settings for requests that do not say."""

    max_tokens: int
    temperature: float
    top_p: float


class Limits(_Closed):
    """What the endpoint accepts.

    Attributes:
        context: longest prompt and answer together, in tokens.
        concurrency: requests answered at the same time; ``None`` is as many as memory holds.
        queue: requests that may wait.
        drain_seconds: time that running answers get after SIGTERM.
        requests_per_minute: of one key, or of one address where no key is asked for; ``None`` for no limit.
    """

    context: int
    concurrency: int | None = None
    queue: int
    drain_seconds: float
    requests_per_minute: int | None = None

    @property
    def body_bytes(self) -> int:
        """The largest body: more text than this cannot fit the context, whatever the tokenizer."""
        return max(1 << 20, 64 * self.context)


class Bundle(_Closed):
    """Settings of an endpoint. Holds nothing that changes from build to build of the same inputs.

    With ``adapter``, ``model/`` is a base and the adapter in ``adapter/`` belongs on top.

    Attributes:
        adapter_digest: of that adapter, see :func:`adapter_digest`; empty where none is apart.
        parity_digest: of ``parity.json``, which the engine must reproduce; empty where nothing was measured.
        request_variables: variables of the template that a request may set.
    """

    format: Literal[1] = 1
    name: str
    description: str = ""
    prompt_digest: str
    spec_digest: str
    adapter: bool = False
    adapter_digest: str = ""
    parity_digest: str = ""
    engine: Literal["transformers", "vllm"]
    device: Literal["cpu", "cuda"]
    dtype: Literal["auto", "bfloat16", "float32"]
    port: int
    defaults: Defaults
    limits: Limits
    cors: tuple[str, ...] = ()
    request_variables: tuple[str, ...] = ()

    @classmethod
    def load(cls, directory: Path) -> Bundle:
        """Read a bundle directory's settings.

        Raises:
            TunebuildError: absent, or not of this format.
        """
        path = directory / FILE_NAME
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise fail("no-bundle", f"{directory} holds no {FILE_NAME}", "name a bundle directory") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise fail("bad-bundle", f"{path}: {where}: {first['msg']}", "rebuild the image") from None

    def check_files(self, directory: Path) -> None:
        """Hold the small files beside the settings to their digests.

        Raises:
            TunebuildError: ``stale-adapter`` or ``parity-changed``: a file is of another build.
        """
        again = "the files are not all of one build: take the image as it was built"
        if self.adapter_digest:
            files = {name: digest_of_file(directory / "adapter" / name) for name in ADAPTER_FILES}
            if (found := adapter_digest(files)) != self.adapter_digest:
                message = f"the adapter is {found[:19]}, not {self.adapter_digest[:19]} of this build"
                raise fail("stale-adapter", message, again)
        if self.parity_digest and digest_of_file(directory / PARITY_FILE) != self.parity_digest:
            raise fail("parity-changed", f"{PARITY_FILE} is not that of this build", again)

    def engine_setup(self, directory: Path) -> EngineSetup:
        """What the engine is made of, of the bundle in ``directory``."""
        return EngineSetup(
            model=directory / "model",
            adapter=directory / "adapter" if self.adapter else None,
            adapter_name=f"{self.name}-{self.adapter_digest.removeprefix('sha256:')[:16]}",
            tokenizer=directory / "prompt" / "tokenizer.json",
            device=self.device,
            dtype=self.dtype,
            context=self.limits.context,
            concurrency=self.limits.concurrency,
        )

    def save(self, directory: Path) -> None:
        """Write ``bundle.json``; equal settings give equal bytes."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
        (directory / FILE_NAME).write_text(text, "utf-8")

"""``serving:`` and ``image:`` - what the container answers and what it is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from tunebuild.spec.model import VariableName
from tunebuild.spec.section import Section

Label = Annotated[str, StringConstraints(pattern=r"^[!-~]?[ -~]*$", max_length=255)]
Repository = Annotated[
    str,
    StringConstraints(
        pattern=r"^(?:[a-z0-9]+(?:[.-][a-z0-9]+)*(?::\d+)?/)?"
        r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$"
    ),
]


Origin = Annotated[str, StringConstraints(pattern=r"^(?:\*|https?://[A-Za-z0-9.\-\[\]:]+)$", max_length=255)]


class ServingDefaults(Section):
    """Sampling settings for requests that do not set them."""

    max_tokens: int = Field(default=512, ge=1, examples=[512])
    """Longest answer in tokens, or what the prompt leaves of the context, whichever is less."""

    temperature: float = Field(default=0.0, ge=0.0, le=2.0, examples=[0.2])
    """Sampling temperature; 0 always takes the most likely token."""

    top_p: float = Field(default=1.0, gt=0.0, le=1.0, examples=[0.95])
    """Nucleus sampling: sample from the most likely tokens that together have this probability."""


#: The context where a spec names none and the base has as many positions.
DEFAULT_CONTEXT = 2048


class ServingLimits(Section):
    """What the endpoint accepts."""

    context: int | None = Field(default=None, ge=16, examples=[4096])
    """Maximum length of prompt and answer together, in tokens; at most the base's positions. Default: 2048 or
    all of the base's positions, whichever is less. The plan prints it, and the image records it."""

    concurrency: int = Field(default=16, ge=1, examples=[16])
    """Requests that are answered at the same time, as one batch."""

    queue: int = Field(default=64, ge=0, examples=[64])
    """Requests that may wait; more are refused with 429 and a Retry-After."""

    drain_seconds: float = Field(default=30.0, ge=0.0, examples=[30])
    """Seconds that running answers have to finish after SIGTERM."""

    requests_per_minute: int | None = Field(default=None, ge=1, examples=[600])
    """Requests per minute of one API key, or of one address if no key is required. More are refused with 429
    and a Retry-After. No limit if left out."""


class ServingSpec(Section):
    """The endpoint."""

    engine: Literal["auto", "transformers", "vllm"] = Field(default="auto", examples=["vllm"])
    """The inference engine. `auto` is `vllm` on `cuda` and `transformers` on `cpu`; the plan prints which.
    For an unmerged adapter that vLLM cannot serve (for instance `merge.strategy: none` with DoRA), `auto` is
    `transformers`."""

    device: Literal["cpu", "cuda"] = Field(default="cpu", examples=["cpu"])
    """Where it runs."""

    dtype: Literal["auto", "bfloat16", "float32"] = Field(default="auto", examples=["auto"])
    """Precision in memory. `auto` is bfloat16 where the hardware has it, else float32."""

    port: int = Field(default=8080, ge=1, le=65535, examples=[8080])
    """Port inside the container."""

    defaults: ServingDefaults = Field(default_factory=ServingDefaults, examples=[{"max_tokens": 512}])
    """Sampling settings for requests that do not set them."""

    limits: ServingLimits = Field(default_factory=ServingLimits, examples=[{"context": 4096}])
    """What the endpoint accepts."""

    cors: tuple[Origin, ...] = Field(default=(), max_length=64, examples=[["https://app.example.com"]])
    """Origins whose web pages may call the endpoint from a browser (CORS); `*` for any. None if left out."""

    request_variables: tuple[VariableName, ...] = Field(
        default=(), max_length=16, examples=[["enable_thinking"]]
    )
    """Variables of the template that a request may set in its `chat_template_kwargs`. A request that sets
    another variable to a value other than that in `prompt.variables` is refused: the model was not trained on
    that prompt."""


class ImageSpec(Section):
    """The container image."""

    repository: Repository | None = Field(default=None, examples=["registry.example.com/support-bot"])
    """Name of the image; the spec's name if left out."""

    tag: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")] = Field(
        default="latest", examples=["1.4.0"]
    )
    """Tag of the image."""

    source: Label = Field(default="", examples=["https://git.example.com/team/bots"])
    """Where the spec is kept, for the label `org.opencontainers.image.source`."""

    revision: Label = Field(default="", examples=["4f2c1d9"])
    """Commit of the spec, for the label `org.opencontainers.image.revision`. In CI, e.g.
    `--set image.revision=$(git rev-parse HEAD)`; another commit is another image."""

    license: Label = Field(default="", examples=["Apache-2.0"])
    """License of what is in the image, as an SPDX expression, for the label
    `org.opencontainers.image.licenses`."""

    base: Literal["apt"] = Field(default="apt", examples=["apt"])
    """`apt`: the minimal Debian packages for Python, from the mirror that this machine is configured for."""

    platform: Literal["linux/amd64", "linux/arm64"] = Field(default="linux/amd64", examples=["linux/amd64"])
    """Platform of the image. It may differ from the platform of the machine that builds."""

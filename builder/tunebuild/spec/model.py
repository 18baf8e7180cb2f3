"""``model:`` and ``prompt:`` - the base model and how it is spoken to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from tunebuild.spec.secret import Secret
from tunebuild.spec.section import Section

Revision = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._/-]{1,200}$")]
IsoDate = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
#: A control token: no blanks, and none of the characters by which the prompt contract marks text.
NewToken = Annotated[str, StringConstraints(pattern=r"^[^\s\uf8f0-\uf8f2]{2,64}$")]
Variable = bool | int | Annotated[float, Field(allow_inf_nan=False)] | str


#: What the name of a model in a registry starts with.
OCI = "oci://"


class ModelSpec(Section):
    """The base model."""

    base: str = Field(min_length=1, examples=["mistralai/Mistral-7B-Instruct-v0.1", "./base"])
    """A model's id on the hub, a directory beside the spec that starts with `./`, or `oci://` and the name of
    an image in a registry that has `/models`, or of a CNCF ModelPack, which a lock pins by digest. Weights
    must be safetensors; code that comes with a model is never run."""

    revision: Revision | None = Field(default=None, examples=["73068f3702d050a2fd5aa2ca1e612e5036429398"])
    """Commit of the hub repository, all 40 digits; or a branch or tag, which `tunebuild lock` resolves to
    the commit that builds then use. `main` if left out. Meaningless for a directory."""

    token: Secret | None = Field(default=None, examples=["${env:HF_TOKEN}"])
    """Where the access token for a private or gated model comes from: `${env:NAME}`. A spec never contains
    the token itself. Without this key, the hub's own login is used."""

    @property
    def is_local(self) -> bool:
        """Whether `base` names a directory."""
        return self.base.startswith(("./", "../", "/"))

    @property
    def is_oci(self) -> bool:
        """Whether `base` names a model in a registry."""
        return self.base.startswith(OCI)


class TemplateFile(Section):
    """A Jinja chat template of your own."""

    file: str = Field(min_length=1, examples=["prompt.jinja"])
    """Path relative to the spec."""


class PromptSpec(Section):
    """The prompt, for training and serving alike."""

    template: str | TemplateFile = Field(
        default="base", examples=["base", "chatml", {"file": "prompt.jinja"}]
    )
    """`base` (the model's own chat template), the name of a shipped template, or `{file: ...}`."""

    new_tokens: tuple[NewToken, ...] = Field(
        default=(), max_length=256, examples=[["<|tool|>", "<|end_tool|>"]]
    )
    """Control tokens to add to the base's tokenizer, for your template to write. Their rows of embedding and
    head are initialized to the mean of all others and are trained; the rows of other tokens do not change.
    Text that a user types never becomes one of them."""

    system: str | None = Field(default=None, examples=["You are the support desk of Example Ltd."])
    """System text for conversations that have none, in the data and in requests."""

    date: IsoDate | None = Field(default=None, examples=["2026-01-31"])
    """The date that a template prints as today's. Needed only by templates that print one."""

    plain_answers: Literal["close", "prefill", "refuse"] = Field(default="close", examples=["prefill"])
    """What happens to answers without reasoning if the template's prompt opens a reasoning block. `close`:
    the model is trained to close the block at once, and then to answer. `prefill`: the prompt itself closes
    it, in training and in serving, so the model never reasons; answers with reasoning are refused. `refuse`:
    answers without reasoning are refused. If the prompt opens no block, any value but `close` is an error."""

    variables: dict[VariableName, Variable] = Field(
        default_factory=dict, examples=[{"enable_thinking": False}]
    )
    """Variables that the template reads besides the conversation, in training, evaluation and serving
    alike. A variable that the template never reads is an error. Requests may set others only where
    `serving.request_variables` names them."""

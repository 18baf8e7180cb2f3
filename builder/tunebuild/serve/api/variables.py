"""``chat_template_kwargs``: which variables of the template a request may set, and to what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunebuild.serve.api.errors import ApiError
from tunebuild.serve.service import Service


def allowed_variables(service: Service, wanted: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The variables that a request sets.

    A value that the spec itself sets is always fine. Another one gives a prompt that the model was not
    trained on, so the spec has to name the variable in ``serving.request_variables``.

    Raises:
        ApiError: 400, naming the variable.
    """
    trained = service.renderer.template.variables
    for name, value in (wanted or {}).items():
        same_kind = name not in trained or _kind(value) == _kind(trained[name])
        if same_kind and trained.get(name) == value and name in trained:
            continue
        if name not in service.bundle.request_variables:
            raise _refused(name, f"this endpoint does not let a request set the template's variable '{name}'")
        if not same_kind:
            # A template that compares with false takes the text "false" for true.
            raise _refused(name, f"the template's variable '{name}' is a {_kind(trained[name])}")
    return wanted or {}


def _refused(name: str, message: str) -> ApiError:
    return ApiError(400, message, "invalid_value", f"chat_template_kwargs.{name}")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"

"""What values of requests may be, whatever the request."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

_DEEPEST = 64


class Closed(BaseModel):
    """An object without other fields than these."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half a surrogate pair, which is no character") from None
    return text


#: Text that a tokenizer can read. JSON can spell what is none.
Text = Annotated[str, AfterValidator(_whole)]


def check_depth(value: Any) -> Any:
    """Refuse JSON that is nested deeper than anybody means it.

    Raises:
        ValueError: it is, or its text holds what is no character.
    """
    level, depth = [value], 0
    while level:
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += [*one.keys(), *one.values()]
            elif isinstance(one, list | tuple):
                inner += one
            elif isinstance(one, str):
                _whole(one)
        level, depth = inner, depth + 1
    return value


#: A JSON Schema, or another object that is handed on as it is.
Object = Annotated[dict[str, Any], AfterValidator(check_depth)]

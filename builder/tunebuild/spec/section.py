"""What all spec sections share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A closed, immutable mapping of the spec: an unknown key is an error at every depth."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        frozen=True,
        defer_build=True,
        populate_by_name=True,
        strict=False,
    )

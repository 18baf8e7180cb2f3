"""The published description of the API is true: what it allows is answered, with a status that it lists."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from support.endpoint import make_bundle, serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.fixture(scope="module")
def operations(tmp_path_factory):
    """What the server says that it does, by method and path."""
    directory = tmp_path_factory.mktemp("bundle")
    with serving(directory, make_bundle(directory, context=64)) as server:
        api = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        found = [result.ok() for result in api.get_all_operations()]
        yield {f"{operation.method.upper()} {operation.path}": operation for operation in found}


@pytest.mark.parametrize("mode", GenerationMode)
def test_any_request_gets_what_the_schema_says(operations, mode):
    assert {"POST /v1/chat/completions", "POST /v1/completions", "GET /v1/models"} <= operations.keys()
    for operation in operations.values():
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # nothing of it can be wrong

        @settings(
            max_examples=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case):
            case.call_and_validate(checks=CHECKS, timeout=60)

        ask()

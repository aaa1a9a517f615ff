"""The OpenAPI document, with requests that schemathesis makes from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from tests.serve.running import PATIENCE_S, Service

pytestmark = pytest.mark.filterwarnings("ignore")  # of schemathesis
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def described(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with Service(tmp_path_factory.mktemp("schema"), model_file, "--max-rows", "20", "--max-characters", "40") as service:
        service.wait()
        yield schemathesis.openapi.from_url(f"{service.url}/openapi.json")


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(
    "path", ["/embedding", "/hidden", "/decode", "/sampling", "/generate", "/v1/health/ready", "/v1/metadata", "/v1/metrics"]
)
def test_requests_made_from_the_description(described: Any, path: str, mode: schemathesis.GenerationMode) -> None:
    operation = described[path]["get" if path.startswith("/v1") else "post"]
    if mode is schemathesis.GenerationMode.NEGATIVE and path.startswith("/v1"):
        assert not operation.body  # nothing of it can be wrong
        return

    @settings(
        max_examples=20,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        if path == "/generate" and isinstance(case.body, dict):  # a search of a million molecules is not a test of the description
            for name in ("particles", "iterations"):
                if isinstance(case.body.get(name), int):
                    case.body[name] = min(case.body[name], 3)
        response = case.call(timeout=PATIENCE_S)
        case.validate_response(response, checks=CHECKS)
        assert len(response.content) < 200_000

    check()

"""Whatever the OpenAPI description allows, and much that it does not, gets an answer that the description promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from server_kit import fill, running

OPERATIONS = [
    ("GET", "/health"),
    ("GET", "/api/status"),
    ("POST", "/api/search"),
    ("GET", "/api/documents"),
    ("GET", "/api/failures"),
    ("GET", "/api/document"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("POST", "/v1/embeddings"),
]


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_dir: Path) -> Iterator[Any]:
    store = fill(tmp_path_factory.mktemp("documents"), tiny_encoder_dir)
    with running(store) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


def test_every_operation_is_tried(description: Any) -> None:
    described = [result.ok() for result in description.get_all_operations()]
    assert {(found.method.upper(), found.path) for found in described} == set(OPERATIONS)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_one_that_was_promised(description: Any, method: str, path: str, mode: GenerationMode) -> None:
    operation = description[path][method]
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
        pytest.skip("nothing about this request can be wrong")

    @settings(
        max_examples=20,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def answered(case: Any) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            case.body.pop("filter", None)  # a language of its own, of which JSON Schema knows nothing
            case.body.pop("task", None)  # a name that the encoder gave
        response = case.call(timeout=120)
        case.validate_response(response)
        assert response.status_code < 500, response.text

    answered()

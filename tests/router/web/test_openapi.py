"""The API does what its description says, whatever is sent: requests made up from /openapi.json by schemathesis."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import one_of
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode

from router.app.asgi import make_app
from router.core.settings import RouterSettings
from tests.api import Api
from tests.services import SONG
from tests.stack import Stack, stack

HELD = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
EXAMPLES = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with stack(tmp_path_factory.mktemp("stack"), workers=0, settings={"max_queued_per_account": 1000}) as whole:
        yield whole


schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
schema = schemathesis.openapi.from_dict(make_app(RouterSettings(), []).openapi())


OPERATIONS = [found.ok() for found in schema.get_all_operations()]


@pytest.mark.parametrize("operation", OPERATIONS, ids=[operation.label for operation in OPERATIONS])
def test_no_request_breaks_the_router_or_its_word(operation: Any, running: Stack) -> None:
    # Not by schemathesis's own `parametrize`: its tests all have one node id, of which xdist runs one.
    modes = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]

    @EXAMPLES
    @given(case=one_of(modes))
    def holds(case: Any) -> None:
        if "job_id" in (case.path_parameters or {}) and len(str(case.path_parameters["job_id"])) % 2:
            case.path_parameters["job_id"] = _new_job_id(running)
        for name in [name for name in case.headers if name.lower() in ("accept", "prefer", "host", "content-length")]:
            # Event streams do not end, waiting takes time, and invalid HTTP is refused by the server before the routes.
            del case.headers[name]
        case.call_and_validate(checks=CHECKS.get_by_names(list(HELD)), base_url=running.url, timeout=20)

    holds()


def _new_job_id(running: Stack) -> str:
    with Api(running.url) as api:
        return str(api.create(size_bytes=len(SONG))["id"])

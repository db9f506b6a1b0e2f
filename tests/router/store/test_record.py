"""The job record: what an older or a newer router wrote is still read."""

from __future__ import annotations

import json

from router.store.record import Job
from tests.services import report


def test_a_record_with_fields_that_this_router_does_not_know_is_read_without_them() -> None:
    job = Job.model_validate({"id": "a", "account": "guest", "options": {}, "created_s": 1.0, "expires_s": 2.0})
    stored = json.loads(job.with_(report=report()).model_dump_json())
    older = {**stored, "idempotency_key": "abc", "receipt": {**stored["receipt"], "signed_by": "nobody"}}
    read = Job.model_validate_json(json.dumps(older))
    assert json.loads(read.model_dump_json()) == stored

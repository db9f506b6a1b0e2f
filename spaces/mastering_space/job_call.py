# No `from __future__ import annotations` here: Gradio reads the types of the endpoint from its signature.
"""The functions that do jobs, one a kind, as gradio_client sees them: `/master` and its like."""

from collections.abc import Callable
from typing import Any

from mastering.contract.kinds import JobKind
from mastering_space.rendering import Rendering


def endpoint(rendering: Rendering, kind: JobKind[Any]) -> Callable[..., Any]:
    """The generator that Gradio calls for a job of this kind."""

    async def job(job_id: str, options: dict, deadline_s: float | None = None) -> dict:  # type: ignore[type-arg,misc]
        """Do the job with the song that was PUT to /v1/jobs/{job_id}/audio.

        Yields events; the last one is {"type": "end", "report", "outputs"} or {"type": "fault", "code", "message"}.
        The outputs wait at /v1/jobs/{job_id}/outputs/{name}.
        """
        async for event in rendering.events(kind, job_id, options, deadline_s):
            yield event

    job.__name__ = kind.name
    return job

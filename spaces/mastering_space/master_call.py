# No `from __future__ import annotations` here: Gradio reads the types of the endpoint from its signature.
"""`/master`, as gradio_client sees it."""

from collections.abc import Callable
from typing import Any

from mastering_space.rendering import Rendering


def endpoint(rendering: Rendering) -> Callable[..., Any]:
    """The generator that Gradio calls."""

    async def master(job_id: str, settings: dict, deadline_s: float | None = None) -> dict:  # type: ignore[type-arg,misc]
        """Master the song that was PUT to /v1/jobs/{job_id}/audio.

        Yields events; the last one is {"type": "end", "report", "outputs"} or {"type": "fault", "code", "message"}.
        The outputs wait at /v1/jobs/{job_id}/outputs/{format}.
        """
        async for event in rendering.events(job_id, settings, deadline_s):
            yield event

    return master

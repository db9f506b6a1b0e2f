"""Joins the parts of a Space, and serves until SIGTERM or SIGINT.

Gradio serves from a thread of its own; the main thread waits for the signal. All of a job is in the memory of this
process and its children, who die with it: what is stopped is forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import gradio
from starlette.types import ASGIApp

import mastering
from mastering.contract.kinds import MASTER
from mastering.runtime.sandbox import forbid_core_dumps
from mastering.worker.render_pool import RenderPool
from mastering.worker.served_kinds import served_kinds, served_paces
from mastering_space import job_call
from mastering_space.descent_relay import DescendFunction
from mastering_space.jobs import SpaceJobs
from mastering_space.logs import SpaceLog
from mastering_space.page import create_page
from mastering_space.rendering import Rendering
from mastering_space.request_guard import SpaceRequestGuard
from mastering_space.routes import SpaceState, create_routes
from mastering_space.settings import SpaceKind, SpaceSettings, WrongSettingError, read_settings

_DELEGATE_DESCENTS = "mastering_space.remote_descent:delegate_descents"
"""What a rendering process calls before a fit, so that the server does its descents."""
_STOP_GRACE_S = 0.5
"""Seconds from the end of the renders to the end of the process, for their last events to be sent."""

_LOOK_S = 0.5
"""Between two looks whether the renderers' sandbox is whole."""
_WRONG_SETTING_STATUS, _INCOMPLETE_SANDBOX_STATUS = 2, 3


class Space(gradio.Server):
    """Gradio's server behind the request guard."""

    def __init__(
        self, kind: SpaceKind, settings: SpaceSettings, log: SpaceLog, descend: DescendFunction | None = None
    ) -> None:
        super().__init__(openapi_url=None, docs_url=None, redoc_url=None)
        self.log = log
        self.jobs = SpaceJobs(settings)
        self.renderers = RenderPool(
            settings.engine,
            settings.concurrency + 1,
            _DELEGATE_DESCENTS,
            allows_incomplete_sandbox=settings.allow_incomplete_sandbox,
        )
        self.loop: asyncio.AbstractEventLoop
        """Of the thread that serves, once it does."""
        self._settings = settings
        self._state = SpaceState(kind, settings, self.jobs, self.renderers)
        rendering = Rendering(settings, self.jobs, self.renderers, log, descend)
        for served in served_kinds().values():
            self.api(job_call.endpoint(rendering, served), name=served.name, concurrency_limit=None)

    def build_middleware_stack(self) -> ASGIApp:
        """Ours is the outermost layer, in front of those that Gradio adds when it launches."""
        gradios = super().build_middleware_stack()
        page = create_page(self._state.kind, self._settings, served_paces()[MASTER.name])
        return SpaceRequestGuard(gradios, create_routes(self._state), page, self._settings.key)

    @contextlib.asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """Warm processes while the server runs, and none after it."""
        self.loop = asyncio.get_running_loop()
        self.renderers.start()
        yield
        self.jobs.forget_all()
        await self.renderers.close()


def serve(kind: SpaceKind, descend: DescendFunction | None = None) -> None:
    """Serve one Space until SIGTERM or SIGINT, or until its sandbox is found to lack something.

    `descend` does the part of a `fit` that wants a GPU.
    """
    forbid_core_dumps()
    try:
        settings = read_settings()
    except WrongSettingError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(_WRONG_SETTING_STATUS) from None
    log = SpaceLog()
    _let_children_import()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    space = Space(kind, settings, log, descend)
    try:
        _launch(space)
    except Exception as error:
        log.broken(error)
        raise SystemExit(1) from None
    log.listening(space.get_blocks().server_port, settings.concurrency)
    _wait_until_stopped(space, stop)
    log.stopping()
    _stop(space)


def _wait_until_stopped(space: Space, stop: threading.Event) -> None:
    told_gaps: tuple[str, ...] = ()
    while not (stop.wait(_LOOK_S) or space.renderers.is_refused):
        if space.renderers.sandbox_gaps != told_gaps:
            told_gaps = space.renderers.sandbox_gaps
            space.log.sandbox_incomplete(told_gaps)
    if space.renderers.is_refused:
        space.log.sandbox_incomplete(space.renderers.sandbox_gaps)


def _launch(space: Space) -> None:
    space.launch(
        app_kwargs={"lifespan": space.lifespan},
        enable_monitoring=False,
        footer_links=[],
        max_file_size=0,
        mcp_server=False,
        prevent_thread_lock=True,
        pwa=False,
        quiet=True,
        run_history=False,
        show_error=False,
        ssr_mode=False,
        strict_cors=True,
    )


def _stop(space: Space) -> None:
    """End the renders, send their last events, and exit without waiting for connections that are still open."""
    space.jobs.is_draining = True
    space.loop.call_soon_threadsafe(space.jobs.forget_all)
    time.sleep(_STOP_GRACE_S)
    space.log.stopped()
    os._exit(_INCOMPLETE_SANDBOX_STATUS if space.renderers.is_refused else 0)


def _let_children_import() -> None:
    """Put the engine's folder on PYTHONPATH: rendering processes do not import from where they start (`python -P`)."""
    folder = str(Path(mastering.__file__).parent.parent)
    known = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *(part for part in known if part != folder)])

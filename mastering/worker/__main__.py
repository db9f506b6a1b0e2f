"""`python -m mastering.worker`: serve renders until told to stop."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mastering.worker.server import serve
from mastering.worker.settings import WorkerSettings


def main(
    host: Annotated[str | None, typer.Option(help="Address to listen on (MASTERING_WORKER_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one (MASTERING_WORKER_PORT).")] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Renders at the same time (MASTERING_WORKER_CONCURRENCY).")
    ] = None,
) -> None:
    """Serve renders over HTTP: audio in, master out, all in RAM. Every setting is MASTERING_WORKER_… too."""
    given: dict[str, Any] = {"host": host, "port": port, "concurrency": concurrency}
    serve(WorkerSettings(**{name: value for name, value in given.items() if value is not None}))


if __name__ == "__main__":
    typer.run(main)

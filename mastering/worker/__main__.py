"""`python -m mastering.worker`: serve renders until told to stop."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from pydantic import ValidationError

from mastering.contract.kinds import WrongVariableError, job_kinds

_INCOMPLETE_SANDBOX_STATUS = 3


def main(
    host: Annotated[str | None, typer.Option(help="Address to listen on (MASTERING_WORKER_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one (MASTERING_WORKER_PORT).")] = None,
    descriptor: Annotated[
        int | None, typer.Option("--fd", help="Listen on this socket, which the caller has bound, and on no other.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Renders at the same time (MASTERING_WORKER_CONCURRENCY).")
    ] = None,
) -> None:
    """Serve renders over HTTP: audio in, master out, all in RAM. Every setting is MASTERING_WORKER_… too."""
    try:
        job_kinds()
    except WrongVariableError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    from mastering.worker.server import IncompleteSandboxError, adopted, serve  # it reads the kinds when it is imported
    from mastering.worker.settings import WorkerSettings

    given: dict[str, Any] = {"host": host, "port": port, "concurrency": concurrency}
    try:
        settings = WorkerSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        # Their texts name the setting and the cure; the values, which may be secrets, stay out.
        for problem in error.errors(include_input=False, include_url=False):
            typer.echo(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}".removeprefix(": "), err=True)
        raise typer.Exit(2) from None
    try:
        serve(settings, None if descriptor is None else adopted(descriptor))
    except IncompleteSandboxError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(_INCOMPLETE_SANDBOX_STATUS) from None
    except OSError:
        typer.echo(f"fd {descriptor}: no socket that can be listened on", err=True)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    typer.run(main)

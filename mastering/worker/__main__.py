"""`python -m mastering.worker`: serve renders until told to stop."""

from __future__ import annotations

import errno
import socket
import ssl
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from mastering.contract.kinds import WrongVariableError, job_kinds
from mastering.runtime import command_line

if TYPE_CHECKING:
    from mastering.worker.settings import WorkerSettings

_INCOMPLETE_SANDBOX, _EXIT_INTERNAL = 3, 70
"""Exit codes."""


class _RefusedError(Exception):
    """The worker can't start: the text says in a line why, and shows no value, which may be a secret."""

    def __init__(self, text: str, code: int = command_line.WRONG_COMMAND_LINE) -> None:
        super().__init__(text)
        self.code = code


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
    """Serve renders over HTTP: audio in, master out, all in RAM. Every setting is MASTERING_WORKER_… too.

    Exit codes: 0 stopped in good order, 2 wrong command line or setting, 70 an error of our own.
    """
    try:
        job_kinds()
    except WrongVariableError as error:
        raise _RefusedError(str(error)) from None
    from mastering.worker.server import IncompleteSandboxError, serve  # it reads the kinds when it is imported
    from mastering.worker.settings import WrongSettingError, misspelt_variables, read_settings

    for sentence in misspelt_variables():
        typer.echo(f"mastering.worker: {sentence}", err=True)
    given = {"host": host, "port": port, "concurrency": concurrency}
    try:
        settings = read_settings({name: value for name, value in given.items() if value is not None})
    except WrongSettingError as error:
        raise _RefusedError(str(error)) from None
    _check_engine(settings.engine)
    _check_certificate(settings)
    try:
        serve(settings, _listener(settings, descriptor))
    except IncompleteSandboxError as error:
        raise _RefusedError(str(error), _INCOMPLETE_SANDBOX) from None


def _check_engine(engine: str) -> None:
    """By finding its module, which each render's process will import; here it would take seconds."""
    try:
        found = find_spec(engine.partition(":")[0])
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise _RefusedError("engine: there is no module of that name. Write module:function")


def _check_certificate(settings: WorkerSettings) -> None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            settings.tls_certificate,
            settings.tls_key,
            password=lambda: "",  # instead of a question at the terminal
        )
    except (OSError, ValueError) as error:  # ssl's are OSErrors
        reason = error.strerror if isinstance(error, FileNotFoundError | PermissionError) else "no certificate and key"
        raise _RefusedError(
            f"tls_certificate and tls_key are not a certificate and its key, in PEM ({reason})"
        ) from None


def _listener(settings: WorkerSettings, descriptor: int | None) -> socket.socket:
    from mastering.worker.server import adopted, listen

    if descriptor is not None:
        try:
            return adopted(descriptor)
        except (OSError, ValueError, OverflowError):
            raise _RefusedError(f"fd {descriptor}: no socket that can be listened on") from None
    try:
        return listen(settings.host, settings.port)
    except UnicodeError:
        raise _RefusedError("host: no name that a host can have") from None
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise _RefusedError(f"host: {settings.host} is no address of this machine") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise _RefusedError(f"port: {settings.port} needs rights that this user has not") from None
        raise _RefusedError(f"port: {settings.port} on {settings.host} is taken") from None


def _told(error: Exception) -> tuple[str, int]:
    if isinstance(error, _RefusedError):
        return str(error), error.code
    return f"an error of our own ({type(error).__name__}). Please report it.", _EXIT_INTERNAL


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(main)

if __name__ == "__main__":
    command_line.run(app, "mastering.worker", _told)

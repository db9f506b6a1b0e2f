"""The `router` command: one function for each subcommand, which only reads its options.

What a subcommand does lies in a module of its own, imported when it is called, so that `--help` is quick. All of them
in one file, hence its length: it is the reference of the command line.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer

from mastering.contract import Effort, Fault
from mastering.contract.kinds import WrongVariableError, job_kinds
from mastering.runtime import command_line
from router.core.settings import read_settings
from router.identity.port import Accounts

T = TypeVar("T")
_EXIT_INTERNAL = 70
EXIT_CODES = {
    0: "done",
    1: "it can't be done here",
    2: "wrong command line, setting or file",
    3: "the router refused",
    4: "no router answers",
    _EXIT_INTERNAL: "an error of our own",
}
"""Stable: scripts rely on them."""
app = typer.Typer(
    no_args_is_help=True,
    epilog="Exit codes: " + ", ".join(f"{number} {meaning}" for number, meaning in EXIT_CODES.items()) + ".",
    pretty_exceptions_enable=False,
    help="Takes songs in, sends each to the best tier that is up, hands masters back, forgets the rest.",
)

ROUTER_URL = "http://127.0.0.1:8080"
Host = Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one. [default: 8080]")]


def _completed(presets: Literal["targets", "styles"]) -> Callable[[str], list[tuple[str, str]]]:
    """What the shell offers for an option that takes a preset: this machine's names, each with what it is for."""

    def names(incomplete: str) -> list[tuple[str, str]]:
        from mastering.contract.presets import presets as known

        try:
            found = getattr(known(), presets)
        except Fault:
            return []
        return [(name, one.purpose) for name, one in found.items() if name.startswith(incomplete)]

    return names


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    worker: Annotated[list[str] | None, typer.Option(help="URL of a managed worker; may be repeated.")] = None,
) -> None:
    """Serve the page and the API. Every other setting is an environment variable ROUTER_…"""
    from router.app.server import serve as serve_now

    _with_one_line_errors(lambda: serve_now(_given(host=host, port=port, workers=tuple(worker or ()) or None)))


@app.command()
def run(
    host: Host = None,
    port: Port = None,
    local_workers: Annotated[int, typer.Option(min=1, max=8, help="Workers to start on this machine.")] = 1,
) -> None:
    """Start the router together with workers of its own on this machine, and print the address."""
    from router.app.server import run as run_now

    _with_one_line_errors(lambda: run_now(_given(host=host, port=port), local_workers))


@app.command()
def submit(
    song: Annotated[Path, typer.Argument(help="The song.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to put it; of several formats, each by its extension.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Delivery target. [default: streaming]", autocompletion=_completed("targets"))
    ] = None,
    style: Annotated[
        str | None, typer.Option(help="Style. [default: neutral]", autocompletion=_completed("styles"))
    ] = None,
    amount: Annotated[
        float | None, typer.Option(min=0, max=100, help="How much to change, in percent. [default: 60]")
    ] = None,
    effort: Annotated[
        Effort | None,
        typer.Option(
            help="How the plan is found: quick, in closed form, or fit, by gradient descent. [default: quick]"
        ),
    ] = None,
    output_format: Annotated[
        list[str] | None,
        typer.Option("--format", help="wav24, flac, mp3 …: see GET /v1/options; may be repeated. [default: wav24]"),
    ] = None,
    kind: Annotated[str, typer.Option(help="Kind of job: see GET /v1/options.")] = "master",
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, an option of that kind of job; may be repeated.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with the job of this id, whose connection broke, in place of a new one.")
    ] = None,
    url: Annotated[str, typer.Option(help="The router.", envvar="ROUTER_URL")] = "http://127.0.0.1:8080",
    as_json: Annotated[bool, typer.Option("--json", help="Print the finished job as JSON.")] = False,
    keep: Annotated[bool, typer.Option(help="Leave the master on the router until its time is over.")] = False,
) -> None:
    """Send a song to a running router and fetch its master. ROUTER_TOKEN holds a token where one is asked for."""
    from router.cli.submit import submit as submit_now
    from router.cli.submit import wanted

    named = _given(target=target, style=style, amount_percent=amount, effort=effort)
    # Not an option: what is typed on a command line can be read by everybody on the machine.
    token = os.environ.get("ROUTER_TOKEN")
    _with_one_line_errors(
        lambda: submit_now(
            url,
            song,
            output,
            wanted(kind, named, option, output_format),
            as_json=as_json,
            keep=keep,
            token=token,
            resume=resume,
        )
    )


@app.command()
def doctor() -> None:
    """Say how to set up signing in, and check what can be checked of it: a line each, exit code 1 if one fails."""
    from router.cli.doctor import examine

    _with_one_line_errors(examine)


accounts_app = typer.Typer(no_args_is_help=True, help="The durable store of consents and tokens.")
app.add_typer(accounts_app, name="accounts")


@accounts_app.command()
def status() -> None:
    """Say whether the store is whole."""

    def tell() -> None:
        is_whole = asyncio.run(_with_accounts(lambda accounts: accounts.is_trusted()))
        typer.echo("whole" if is_whole else "lost: every job is managed only until 'router accounts confirm'")
        raise typer.Exit(0 if is_whole else 1)

    _with_one_line_errors(tell)


@accounts_app.command()
def confirm() -> None:
    """After the store was lost: let accounts start with the service's default again."""
    _with_one_line_errors(lambda: asyncio.run(_with_accounts(lambda accounts: accounts.confirm())))
    typer.echo("Confirmed: accounts that have not chosen start with the service's default, the tiers in order.")


@accounts_app.command()
def rotate_pepper() -> None:
    """Make a new secret for the pseudonyms. Accounts move to it as their people sign in; restart the router."""
    from router.identity import pseudonyms

    _with_one_line_errors(
        lambda: typer.echo(f"Pepper {pseudonyms.rotate_pepper(_pepper_folder())} is the newest. Restart the router.")
    )


@accounts_app.command()
def retire_peppers() -> None:
    """Forget all secrets but the newest, and the accounts of people who have not signed in since."""
    _with_one_line_errors(_retire_older_peppers)


def _retire_older_peppers() -> None:
    from router.identity import pseudonyms

    settings = read_settings()
    given = settings.pepper.get_secret_value() if settings.pepper is not None else None
    older = pseudonyms.load_peppers(settings.state_dir, given).older

    async def retire(accounts: Accounts) -> list[tuple[int, int]]:
        return [(version, await accounts.retire_pepper(version)) for version in older]

    for version, gone in asyncio.run(_with_accounts(retire)):
        typer.echo(f"Pepper {version}: {gone} rows erased.")
    if given is None:
        pseudonyms.retire_peppers(settings.state_dir)
        typer.echo("Only the newest pepper is left. Restart the router.")
    else:
        typer.echo("Take all peppers but the first out of ROUTER_PEPPER, then restart the router.")


def _pepper_folder() -> Path:
    from router.core.command_error import CommandError

    settings = read_settings()
    if settings.pepper is not None:
        raise CommandError("the pepper is in ROUTER_PEPPER: put a new version before the others there.", exit_code=2)
    return settings.state_dir


async def _with_accounts(call: Callable[[Accounts], Awaitable[T]]) -> T:
    """What `call` answers of the accounts of this machine."""
    from router.identity.accounts import open_accounts

    settings = read_settings()
    marker = settings.ram_dir / "accounts.expected"
    async with open_accounts(settings.state_dir, [marker] if settings.ram_dir.is_dir() else []) as accounts:
        return await call(accounts)


privacy_app = typer.Typer(no_args_is_help=True, help="The promises of this service.")
app.add_typer(privacy_app, name="privacy")


@privacy_app.command("selfcheck")
def privacy_selfcheck(
    url: Annotated[str, typer.Option(help="The running router, if one runs.", envvar="ROUTER_URL")] = ROUTER_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    canary: Annotated[bool, typer.Option(help="Send a song through a router of its own and look what is left.")] = True,
) -> None:
    """Say of every promise whether it is kept here, and the cure where it is not. Exit code 1 if one is broken."""
    from router.cli.server import checked_url
    from router.privacy.selfcheck import selfcheck

    def check() -> None:
        raise typer.Exit(selfcheck(checked_url(url), as_json=as_json, canary=canary))

    _with_one_line_errors(check)


AdminUrl = Annotated[str, typer.Option("--url", help="The operators' port.", envvar="ROUTER_ADMIN_URL")]
Backend = Annotated[str, typer.Argument(help="Its name, as `router status` shows it.")]
ADMIN_URL = "http://127.0.0.1:8081"


@app.command("status")
def show_status(
    url: AdminUrl = ADMIN_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show tiers, queue and spool of a running router."""
    from router.cli.operate import show_status as show_now

    _with_one_line_errors(lambda: show_now(url, as_json=as_json))


@app.command()
def drain(backend: Backend, url: AdminUrl = ADMIN_URL) -> None:
    """Give a backend no new jobs; it finishes those it has."""
    _set_backend_mode(url, backend, "draining")


@app.command()
def maintenance(backend: Backend, url: AdminUrl = ADMIN_URL) -> None:
    """Give a backend no new jobs and send those it has elsewhere at once."""
    _set_backend_mode(url, backend, "maintenance")


@app.command()
def ready(backend: Backend, url: AdminUrl = ADMIN_URL) -> None:
    """Use a backend again."""
    _set_backend_mode(url, backend, "ready")


deploy_app = typer.Typer(no_args_is_help=True, help="Put this project's Spaces on Hugging Face.")
app.add_typer(deploy_app, name="deploy")


@deploy_app.callback()
def _deploy() -> None:
    """Makes `deploy` a group: with one command alone typer would drop the word `space`."""


@deploy_app.command("space")
def deploy_space(
    kind: Annotated[str, typer.Argument(help="zero_gpu, cpu or router.")],
    repo: Annotated[str, typer.Option(help="owner/name of the Space.")],
    private: Annotated[bool, typer.Option("--private/--public", help="Who may see and call it.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; ask nobody.")] = False,
    hardware: Annotated[
        str | None, typer.Option(help="Hardware by the Hub's name; what the kind needs if not given.")
    ] = None,
    sleep_s: Annotated[int | None, typer.Option(min=300, help="Sleep after so many seconds without a request.")] = None,
    secret: Annotated[list[str] | None, typer.Option(help="Environment variable to store as a secret there.")] = None,
    variable: Annotated[list[str] | None, typer.Option(help="NAME=VALUE to set there.")] = None,
    catalogue: Annotated[Path | None, typer.Option(help="For router: the tiers that it will use.")] = None,
) -> None:
    """Create or update a Space. The token is HF_TOKEN's, or that of `hf auth login`."""
    from router.cli.deploy import DeployOptions
    from router.cli.deploy import deploy as deploy_now

    options = DeployOptions(
        kind, repo, private, hardware, sleep_s, tuple(secret or ()), tuple(variable or ()), catalogue
    )
    _with_one_line_errors(lambda: deploy_now(options, dry_run=dry_run))


def _set_backend_mode(url: str, backend: str, mode: str) -> None:
    from router.cli.operate import set_mode

    _with_one_line_errors(lambda: set_mode(url, backend, mode))


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def _with_one_line_errors(command: Callable[[], object]) -> None:
    """Run the command. A CommandError, which its user can cure, ends in one line and its exit code, in no traceback."""
    from router.core.command_error import CommandError

    try:
        command()
    except CommandError as command_error:
        command_line.fail("router", str(command_error), command_error.exit_code)


def main() -> None:
    """Entry point of the command: every failure is one line on standard error and a code from `EXIT_CODES`."""
    try:
        job_kinds()  # read by what the subcommands import
    except WrongVariableError as error:
        command_line.fail("router", str(error), command_line.WRONG_COMMAND_LINE)
    command_line.run(app, "router", _told)


def _told(error: Exception) -> tuple[str, int]:
    from router.core.command_error import CommandError

    if isinstance(error, CommandError):
        return str(error), error.exit_code
    return f"an error of our own ({type(error).__name__}). Please report it.", _EXIT_INTERNAL

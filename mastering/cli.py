"""The `mastering` command: master, analyse, plan, compare, demo-song.

Heavy imports wait until a command needs them, so that --help and a mistyped option answer at once.
The file is long because each command spells out its options, which are its help.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, BinaryIO, cast

import typer
from pydantic import ValidationError

from mastering.contract import (
    ENGINE_VERSION,
    Effort,
    Fault,
    FaultCode,
    Measurements,
    OutputFormat,
    Plan,
    Report,
    Settings,
    Stage,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

EXIT_CODES = {
    FaultCode.EMPTY_FILE: 10,
    FaultCode.UNSUPPORTED_FORMAT: 11,
    FaultCode.UNDECODABLE: 12,
    FaultCode.TRUNCATED: 13,
    FaultCode.NOT_FINITE: 14,
    FaultCode.SILENT: 15,
    FaultCode.TOO_SHORT: 16,
    FaultCode.TOO_LONG: 17,
    FaultCode.TOO_LARGE: 18,
    FaultCode.TOO_MANY_CHANNELS: 19,
    FaultCode.UNSUPPORTED_RATE: 20,
    FaultCode.BAD_SETTINGS: 21,
    FaultCode.RESOURCE_LIMIT: 22,
    FaultCode.BUSY: 30,
    FaultCode.CANCELLED: 31,
    FaultCode.DEADLINE: 32,
    FaultCode.OUT_OF_MEMORY: 33,
    FaultCode.BAD_MASTER: 34,
    FaultCode.BAD_REQUEST: 35,
    FaultCode.INTERNAL: 40,
}
"""Stable: scripts rely on them. 0 is success, 1 a file that can't be read or written, 2 a wrong command line."""

_EPILOG = "Exit codes: 0 done, 1 a file cannot be read or written, 2 wrong command line, " + ", ".join(
    f"{number} {code.replace('_', ' ')}" for code, number in EXIT_CODES.items()
)

app = typer.Typer(
    help="Master a song: loudness, true peak and tone for where it is going.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Song = Annotated[Path, typer.Argument(help="The song: WAV, FLAC, MP3, Ogg, AIFF or M4A.", show_default=False)]
Target = Annotated[str, typer.Option("--target", "-t", help="Where the master goes; `mastering presets` lists them.")]
Style = Annotated[str, typer.Option("--style", "-s", help="The sound; `mastering presets` lists them.")]
Amount = Annotated[float, typer.Option("--amount", help="How much of the tone shaping, 0 to 100 percent.")]
Loudness = Annotated[float | None, typer.Option("--loudness", help="LUFS, instead of the target's.")]
Ceiling = Annotated[float | None, typer.Option("--ceiling", help="dBTP, instead of the target's.")]
Rate = Annotated[int | None, typer.Option("--rate", help="Sample rate of the master in Hz; else the song's own.")]
References = Annotated[
    list[Path] | None,
    typer.Option("--reference", "-r", help="A song to sound like, or its 'analyse --json'. May be repeated."),
]
Weights = Annotated[list[float] | None, typer.Option("--weight", help="Weight of each reference, in order.")]
MaxCrestLoss = Annotated[
    float | None, typer.Option("--max-crest-loss", help="Stay quieter rather than lose more dB of crest than this.")
]
EffortOption = Annotated[
    Effort,
    typer.Option("--effort", help="How the plan is found: quick (closed form) or fit (refined by gradient descent)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]


class _Refused(Exception):
    """A file that can't be read or written; the text is for the person."""


def main() -> None:
    """Entry point: every failure is one line on standard error and a code from `EXIT_CODES`."""
    try:
        app()
    except Fault as fault:
        _fail(fault.message, EXIT_CODES[fault.code])
    except _Refused as refusal:
        _fail(str(refusal), 1)
    except KeyboardInterrupt:
        _fail("stopped.", 130)
    except MemoryError:
        _fail("there is not enough memory for this song.", EXIT_CODES[FaultCode.OUT_OF_MEMORY])
    except Exception as error:
        where = type(error).__name__
        _fail(f"an error of our own ({where}). Please report it.", EXIT_CODES[FaultCode.INTERNAL])


def _fail(message: str, code: int) -> None:
    print(f"mastering: {message}", file=sys.stderr)  # noqa: T201 - this is a command
    sys.exit(code)


def _say(text: str) -> None:
    print(text)  # noqa: T201 - this is a command


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the engine's version.")] = False,
    own_presets: Annotated[
        Path | None, typer.Option("--presets", help="Targets and styles of your own, as TOML; before the verb.")
    ] = None,
) -> None:
    if own_presets is not None:
        os.environ["MASTERING_PRESETS"] = str(own_presets)
    if version:
        _say(ENGINE_VERSION)
        raise typer.Exit


@app.command(epilog=_EPILOG)
def master(
    song: Song,
    output: Annotated[
        list[Path],
        typer.Option("--output", "-o", help="Where to write; the extension says the format. May be repeated."),
    ],
    kind: Annotated[
        OutputFormat | None, typer.Option("--format", "-f", help="Format, where the extension does not say enough.")
    ] = None,
    target: Target = "streaming",
    style: Style = "neutral",
    amount: Amount = 60.0,
    loudness: Loudness = None,
    ceiling: Ceiling = None,
    rate: Rate = None,
    reference: References = None,
    weight: Weights = None,
    max_crest_loss: MaxCrestLoss = None,
    effort: EffortOption = Effort.QUICK,
    strip_tags: Annotated[bool, typer.Option("--strip-tags", help="Leave the song's tags and cover out.")] = False,
    report_page: Annotated[Path | None, typer.Option("--report", help="Write a report as one HTML page.")] = None,
    as_json: AsJson = False,
) -> None:
    """Master SONG and write the result.

    Example: mastering master in.ogg -o out.wav --target streaming
    """
    from mastering import engine

    places = _places(output, kind)
    settings = _settings(
        outputs=tuple(places),
        target=target,
        style=style,
        amount_percent=amount,
        loudness_lufs=loudness,
        ceiling_dbtp=ceiling,
        rate_hz=rate,
        max_crest_loss_db=max_crest_loss,
        effort=effort,
        reference_weights=tuple(weight or ()),
        keep_tags=not strip_tags,
    )
    with ExitStack() as stack:
        source = stack.enter_context(_reading(song))
        files = {form: stack.enter_context(_writing(path, source)) for form, path in places.items()}
        progress = stack.enter_context(_progress_bar(quiet=as_json))
        likenesses = [stack.enter_context(_reading(path)) for path in reference or ()]
        report = engine.master(
            source,
            settings,
            references=likenesses,
            open_output=files.__getitem__,
            progress=progress,
            traced=report_page is not None,
        )
    if report_page is not None:
        _write_page(report, report_page, output[0])
    if as_json:
        _say(report.model_dump_json(indent=2))
    else:
        _print_report(report)


@app.command()
def album(
    songs: Annotated[list[Path], typer.Argument(help="The tracks, in order.", show_default=False)],
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder for the masters; names are kept.")],
    kind: Annotated[OutputFormat, typer.Option("--format", "-f", help="Format of all of them.")] = OutputFormat.WAV24,
    target: Target = "streaming",
    style: Style = "neutral",
    amount: Amount = 60.0,
    rate: Rate = None,
    reference: References = None,
) -> None:
    """Master SONGS as one album: one tone, the loudest track at the target, relative loudness kept."""
    from mastering.album import master_album

    settings = _settings(target=target, style=style, amount_percent=amount, rate_hz=rate, outputs=(kind,))
    with ExitStack() as stack:
        tracks = [stack.enter_context(_reading(path)) for path in songs]
        likenesses = [stack.enter_context(_reading(path)) for path in reference or ()]
        places = [folder / f"{path.stem}.{kind.extension}" for path in songs]
        files = [stack.enter_context(_writing(place, track)) for place, track in zip(places, tracks, strict=True)]
        progress = stack.enter_context(_progress_bar(quiet=False))
        reports = master_album(
            tracks,
            settings,
            references=likenesses,
            open_output=lambda number, form: files[number],
            progress=progress,
        )
    for path, report in zip(songs, reports, strict=True):
        _say(f"{report.before.integrated_lufs:7.2f} -> {report.after.integrated_lufs:7.2f} LUFS  {path.name}")


@app.command()
def preview(
    song: Song,
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder for the previews; it is made if need be.")],
    kind: Annotated[OutputFormat, typer.Option("--format", "-f", help="Format of all of them.")] = OutputFormat.WAV24,
    target: Target = "streaming",
    amount: Amount = 60.0,
    reference: References = None,
    seconds: Annotated[float, typer.Option(min=5, max=120, help="How much of the song.")] = 30.0,
) -> None:
    """Write the loudest half minute of SONG in every style, all equally loud, with the original beside them."""
    from mastering.preview import write_previews

    settings = _settings(target=target, amount_percent=amount, outputs=(kind,))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _Refused(f"cannot make the folder: {os.strerror(error.errno or 0).lower()}.") from None
    with ExitStack() as stack:
        source = stack.enter_context(_reading(song))
        likenesses = [stack.enter_context(_reading(path)) for path in reference or ()]
        progress = stack.enter_context(_progress_bar(quiet=False))
        places = {}

        def open_output(name: str) -> BinaryIO:
            places[name] = folder / f"{song.stem} ({name}).{kind.extension}"
            return stack.enter_context(_writing(places[name], source))

        made = write_previews(
            source, settings, references=likenesses, open_output=open_output, seconds=seconds, progress=progress
        )
    for each in made:
        _say(f"{each.loudness_lufs:7.2f} LUFS  {places[each.style].name}")


@app.command()
def analyse(song: Song, as_json: AsJson = False) -> None:
    """Measure SONG: loudness, range, true peak, crest, stereo."""
    measured = _measure(song, with_character=as_json)
    if as_json:
        _say(measured.model_dump_json(indent=2))
    else:
        _print_table({"": measured})


@app.command()
def plan(
    song: Song,
    target: Target = "streaming",
    style: Style = "neutral",
    amount: Amount = 60.0,
    loudness: Loudness = None,
    ceiling: Ceiling = None,
    rate: Rate = None,
    reference: References = None,
    weight: Weights = None,
    max_crest_loss: MaxCrestLoss = None,
    effort: EffortOption = Effort.QUICK,
    as_json: AsJson = False,
) -> None:
    """Say what mastering SONG would do, with a reason for every step, without writing a master."""
    from mastering import engine

    settings = _settings(
        outputs=(OutputFormat.WAV24,),
        target=target,
        style=style,
        amount_percent=amount,
        loudness_lufs=loudness,
        ceiling_dbtp=ceiling,
        rate_hz=rate,
        max_crest_loss_db=max_crest_loss,
        effort=effort,
        reference_weights=tuple(weight or ()),
    )
    with ExitStack() as stack:
        source = stack.enter_context(_reading(song))
        progress = stack.enter_context(_progress_bar(quiet=as_json))
        likenesses = [stack.enter_context(_reading(path)) for path in reference or ()]
        chosen = engine.make_plan(source, settings, references=likenesses, progress=progress)
    if as_json:
        _say(chosen.model_dump_json(indent=2))
    else:
        _print_plan(chosen)


@app.command(name="render")
def render_by_plan(
    song: Song,
    plan_file: Annotated[Path, typer.Option("--plan", help="A plan or report as JSON, from plan or master --json.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write; .wav or .flac.")],
    kind: Annotated[
        OutputFormat | None, typer.Option("--format", "-f", help="Instead of the extension's format.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Render SONG by a finished plan: the same samples as when the plan was made."""
    from mastering import engine

    with _reading(plan_file) as file:
        chosen = engine.read_plan(file)
    form = kind or _format_of(output)
    chosen = _rendered_to(chosen, form)
    with _reading(song) as source, _writing(output, source) as target, _progress_bar(quiet=as_json) as progress:
        after = engine.render_plan(source, chosen, open_output=lambda kind: target, progress=progress)
    if as_json:
        _say(after.model_dump_json(indent=2))
    else:
        _print_table({"after": after})


@app.command(name="verify-plan")
def verify_plan(
    song: Song,
    master_file: Annotated[Path, typer.Argument(metavar="MASTER", help="The 24-bit master made by the plan.")],
    plan_file: Annotated[Path, typer.Option("--plan", help="The plan or report, as JSON.")],
) -> None:
    """Prove that MASTER is what the plan makes of SONG: render it again and subtract (the null test)."""
    from tempfile import TemporaryFile

    from mastering import engine
    from mastering.plan import plan_hash

    with _reading(plan_file) as file:
        chosen = engine.read_plan(file)
    chosen = chosen.model_copy(
        update={"settings": chosen.settings.model_copy(update={"outputs": (OutputFormat.WAV24,)})}
    )
    with _reading(song) as source, _reading(master_file) as delivered, TemporaryFile() as again:
        engine.render_plan(source, chosen, open_output=lambda kind: cast(BinaryIO, again))
        steps = engine.difference_steps(cast(BinaryIO, again), delivered)
    _say(f"plan {plan_hash(chosen)}")
    if steps:
        what = "another length, rate or number of channels" if steps < 0 else f"up to {steps} steps of 24 bits"
        raise Fault(FaultCode.BAD_MASTER, f"The null test fails: {what}. Another song or plan made this master.")
    _say("The null test holds: not one sample differs.")


@app.command()
def certify(
    master_file: Annotated[Path, typer.Argument(metavar="MASTER", help="A finished master, in any format.")],
    target: Target = "streaming",
    loudness: Loudness = None,
    ceiling: Ceiling = None,
    as_json: AsJson = False,
) -> None:
    """Measure MASTER by two sets of meters that share no code, and say whether both find it within the target.

    Ours, and pyloudnorm (De Man's filters) with a true peak by soxr at 16 x. Exit code 34 if one of them does not.
    """
    from mastering import plan, verify
    from mastering.certificate import certify as second_opinion

    settings = _settings(target=target, loudness_lufs=loudness, ceiling_dbtp=ceiling)
    ours = _measure(master_file)
    with _reading(master_file) as file:
        theirs = second_opinion(file)
    wished, most = plan.loudness_lufs(settings), plan.ceiling_dbtp(settings)
    readings = {
        "ours": (ours.integrated_lufs, ours.true_peak_dbtp),
        "pyloudnorm and soxr": (theirs.integrated_lufs, theirs.true_peak_dbtp),
    }
    missed = [name for name, found in readings.items() if not verify.meets(*found, wished, most)]
    if as_json:
        body = {name: {"integrated_lufs": lufs, "true_peak_dbtp": peak} for name, (lufs, peak) in readings.items()}
        _say(json.dumps({"target_lufs": wished, "ceiling_dbtp": most, "readings": body, "holds": not missed}, indent=2))
    else:
        _say(f"{'asked for':20} {wished:7.2f} LUFS {most:6.2f} dBTP")
        for name, (lufs, peak) in readings.items():
            _say(f"{name:20} {'silent' if lufs is None else f'{lufs:7.2f}'} LUFS {peak:6.2f} dBTP")
    if missed:
        raise Fault(FaultCode.BAD_MASTER, f"The master is not within the target by {' and by '.join(missed)}.")


@app.command()
def compare(first: Song, second: Song, as_json: AsJson = False) -> None:
    """Measure FIRST and SECOND side by side, as before and after."""
    pair = {"first": _measure(first), "second": _measure(second)}
    if as_json:
        _say(json.dumps({name: found.model_dump(mode="json") for name, found in pair.items()}, indent=2))
    else:
        _print_table(pair)


@app.command(name="presets")
def list_presets(as_json: AsJson = False) -> None:
    """List the delivery targets and the styles."""
    from mastering.presets import presets

    known = presets()
    if as_json:
        _say(known.model_dump_json(indent=2, by_alias=True))
        return
    for name, target in known.targets.items():
        _say(f"target {name:16} {target.loudness_lufs:6.1f} LUFS {target.ceiling_dbtp:5.1f} dBTP  {target.purpose}")
    for name, style in known.styles.items():
        _say(f"style  {name:16} {style.purpose}")


@app.command(name="demo-song")
def demo_song(output: Annotated[Path, typer.Argument(help="Where to write the WAV file.", show_default=False)]) -> None:
    """Write half a minute of synthesised music, to try everything with."""
    from mastering import engine

    with _writing(output, None) as file:
        engine.write_demo_song(file)
    _say(f"Half a minute of music is in {output.name}. Try: mastering master {output.name} -o master.wav")


def _settings(**asked: Any) -> Settings:
    from mastering import presets

    try:
        settings = Settings(**asked)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0]).split("_")[0]
        raise Fault(FaultCode.BAD_SETTINGS, f"--{name}: {first['msg'].lower()}.") from None
    presets.check(settings)
    return settings


def _write_page(report: Report, path: Path, written: Path) -> None:
    """The page, with the second meters' word where the master is short enough for them."""
    from mastering.certificate import certify
    from mastering.report import html

    try:
        # Reports tell of the first format that was written, lossless before lossy, and so do the second meters.
        with _reading(written) as file:
            certificate = certify(file)
    except Fault:
        certificate = None
    try:
        path.write_text(html(report, certificate), "utf-8")
    except OSError as error:
        raise _Refused(f"cannot write the report: {os.strerror(error.errno or 0).lower()}.") from None


def _rendered_to(chosen: Plan, form: OutputFormat) -> Plan:
    return chosen.model_copy(update={"settings": chosen.settings.model_copy(update={"outputs": (form,)})})


def _places(paths: list[Path], kind: OutputFormat | None) -> dict[OutputFormat, Path]:
    places: dict[OutputFormat, Path] = {}
    for path in paths:
        form = kind if kind is not None and len(paths) == 1 else _format_of(path)
        if form in places:
            raise Fault(FaultCode.BAD_SETTINGS, f"Two outputs of the format {form} were asked for; one is enough.")
        places[form] = path
    return places


def _format_of(path: Path) -> OutputFormat:
    extension = path.suffix.lower().removeprefix(".")
    for form in OutputFormat:
        if form.extension == extension:
            return form
    known = ", ".join(sorted({f".{form.extension}" for form in OutputFormat}))
    raise Fault(FaultCode.BAD_SETTINGS, f"The output's extension says no format. Use one of {known}, or --format.")


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise _Refused(f"cannot read the input: {os.strerror(error.errno or 0).lower()}.") from None
    with file:
        yield file


@contextmanager
def _writing(path: Path, source: BinaryIO | None) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its name when all went well, and is gone if not."""
    if source is not None and path.exists() and os.path.samestat(os.fstat(source.fileno()), path.stat()):
        raise _Refused("the output would overwrite the input. Choose another name.")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        file = part.open("w+b")
    except OSError as error:
        raise _Refused(f"cannot write the output: {os.strerror(error.errno or 0).lower()}.") from None
    try:
        with file:
            yield cast(BinaryIO, file)
        part.replace(path)
    except OSError as error:
        raise _Refused(f"cannot write the output: {os.strerror(error.errno or 0).lower()}.") from None
    finally:
        part.unlink(missing_ok=True)


def _measure(path: Path, *, with_character: bool = False) -> Measurements:
    from mastering import engine

    with _reading(path) as source:
        return engine.measure(source, with_character=with_character)


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def _progress_bar(*, quiet: bool) -> Iterator[Callable[[Stage, float], None]]:
    """A bar on standard error, if that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda stage, fraction: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns: tuple[Any, ...] = (TextColumn("{task.description:8}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console(), transient=True) as bar:
        task = bar.add_task("decode", total=1.0)
        yield lambda stage, fraction: bar.update(task, completed=fraction, description=str(stage))


def _print_report(report: Report) -> None:
    _print_table({"before": report.before, "after": report.after})
    _print_plan(report.plan)
    for flag in report.flags:
        _say(f"note: {flag}")


def _print_plan(chosen: Plan) -> None:
    for step in chosen.steps:
        _say(f"{step.name:12} {step.reason}")


_ROWS = (
    ("integrated loudness", "integrated_lufs", "LUFS"),
    ("max short-term", "max_short_term_lufs", "LUFS"),
    ("loudness range", "loudness_range_lu", "LU"),
    ("true peak", "true_peak_dbtp", "dBTP"),
    ("crest", "crest_db", "dB"),
    ("peak to loudness", "peak_to_loudness_lu", "LU"),
    ("correlation", "correlation", ""),
    ("width", "width_db", "dB"),
    ("duration", "duration_s", "s"),
)


def _print_table(columns: dict[str, Measurements]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    table.add_column("")
    for title, field, unit in _ROWS:
        values = [getattr(found, field) for found in columns.values()]
        table.add_row(title, *("–" if value is None else f"{value:.2f}" for value in values), unit)
    out: IO[str] = sys.stdout
    Console(file=out).print(table)

"""The verbs that render or plan a song: master, album, preview, plan, render, demo-song.

Over 250 lines, because each verb spells out its options, which are its help.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from mastering.cli.app import app
from mastering.cli.files import format_of, paths_by_format, reading, writing
from mastering.cli.options import (
    Amount,
    AsJson,
    Ceiling,
    EffortOption,
    Loudness,
    MaxCrestLoss,
    Rate,
    References,
    Song,
    StyleOption,
    TargetOption,
    Weights,
    settings_of,
    with_output,
)
from mastering.cli.outcome import EPILOG, UsageError, print_line
from mastering.cli.terminal import print_plan, print_report, print_table, progress_bar
from mastering.contract import Effort, Fault, OutputFormat, Report


@app.command(epilog=EPILOG)
def master(
    song: Song,
    output: Annotated[
        list[Path],
        typer.Option("--output", "-o", help="Where to write; the extension says the format. May be repeated."),
    ],
    kind: Annotated[
        OutputFormat | None, typer.Option("--format", "-f", help="Format, where the extension does not say enough.")
    ] = None,
    target: TargetOption = "streaming",
    style: StyleOption = "neutral",
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
    from mastering.engine import pipeline

    paths = paths_by_format(output, kind)
    settings = settings_of(
        outputs=tuple(paths),
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
        source = stack.enter_context(reading(song))
        references = [stack.enter_context(reading(path)) for path in reference or ()]
        files = {form: stack.enter_context(writing(path, source, *references)) for form, path in paths.items()}
        progress = stack.enter_context(progress_bar(quiet=as_json))
        report = pipeline.master(
            source,
            settings,
            references=references,
            open_output=files.__getitem__,
            progress=progress,
            with_costs=report_page is not None,
        )
    if report_page is not None:
        _write_page(report, report_page, output[0])
    if as_json:
        print_line(report.model_dump_json(indent=2))
    else:
        print_report(report)


@app.command()
def album(
    songs: Annotated[list[Path], typer.Argument(help="The tracks, in order.", show_default=False)],
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder for the masters; names are kept.")],
    kind: Annotated[OutputFormat, typer.Option("--format", "-f", help="Format of all of them.")] = OutputFormat.WAV24,
    target: TargetOption = "streaming",
    style: StyleOption = "neutral",
    amount: Amount = 60.0,
    rate: Rate = None,
    reference: References = None,
) -> None:
    """Master SONGS as one album: one tone, the loudest track at the target, relative loudness kept."""
    from mastering.engine.album import master_album

    settings = settings_of(target=target, style=style, amount_percent=amount, rate_hz=rate, outputs=(kind,))
    with ExitStack() as stack:
        tracks = [stack.enter_context(reading(path)) for path in songs]
        references = [stack.enter_context(reading(path)) for path in reference or ()]
        masters = [folder / f"{path.stem}.{kind.extension}" for path in songs]
        files = [stack.enter_context(writing(path, *tracks, *references)) for path in masters]
        progress = stack.enter_context(progress_bar(quiet=False))
        reports = master_album(
            tracks,
            settings,
            references=references,
            open_output=lambda number, form: files[number],
            progress=progress,
        )
    for path, report in zip(songs, reports, strict=True):
        print_line(f"{report.before.integrated_lufs:7.2f} -> {report.after.integrated_lufs:7.2f} LUFS  {path.name}")


@app.command()
def preview(
    song: Song,
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder for the previews; it is made if need be.")],
    kind: Annotated[OutputFormat, typer.Option("--format", "-f", help="Format of all of them.")] = OutputFormat.WAV24,
    target: TargetOption = "streaming",
    amount: Amount = 60.0,
    reference: References = None,
    seconds: Annotated[float, typer.Option(min=5, max=120, help="How much of the song.")] = 30.0,
) -> None:
    """Write the loudest half minute of SONG in every style, all equally loud, with the original beside them."""
    from mastering.engine.preview import write_previews

    settings = settings_of(target=target, amount_percent=amount, outputs=(kind,))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder: {os.strerror(error.errno or 0).lower()}.") from None
    with ExitStack() as stack:
        source = stack.enter_context(reading(song))
        references = [stack.enter_context(reading(path)) for path in reference or ()]
        progress = stack.enter_context(progress_bar(quiet=False))
        paths = {}

        def open_output(name: str) -> BinaryIO:
            paths[name] = folder / f"{song.stem} ({name}).{kind.extension}"
            return stack.enter_context(writing(paths[name], source, *references))

        made = write_previews(
            source, settings, references=references, open_output=open_output, seconds=seconds, progress=progress
        )
    for each in made:
        print_line(f"{each.loudness_lufs:7.2f} LUFS  {paths[each.style].name}")


@app.command()
def plan(
    song: Song,
    target: TargetOption = "streaming",
    style: StyleOption = "neutral",
    amount: Amount = 60.0,
    loudness: Loudness = None,
    ceiling: Ceiling = None,
    rate: Rate = None,
    reference: References = None,
    weight: Weights = None,
    max_crest_loss: MaxCrestLoss = None,
    effort: EffortOption = Effort.QUICK,
    as_json: AsJson = False,
    as_pedalboard: Annotated[
        bool, typer.Option("--as-pedalboard", help="Print the board as a script for Python and pedalboard.")
    ] = False,
) -> None:
    """Say what mastering SONG would do, with a reason for every step, without writing a master."""
    from mastering.engine import board_script, inputs, pipeline

    settings = settings_of(
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
        source = stack.enter_context(reading(song))
        progress = stack.enter_context(progress_bar(quiet=as_json))
        references = [stack.enter_context(reading(path)) for path in reference or ()]
        chosen = pipeline.make_plan(source, settings, references=references, progress=progress)
        channels = inputs.channels_of(source) if as_pedalboard else 0
    if as_pedalboard:
        print_line(board_script.as_pedalboard(chosen, channels).removesuffix("\n"))
    elif as_json:
        print_line(chosen.model_dump_json(indent=2))
    else:
        print_plan(chosen)


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
    from mastering.engine import replay

    with reading(plan_file) as file:
        chosen = replay.read_plan(file)
    form = kind or format_of(output)
    chosen = with_output(chosen, form)
    with reading(song) as source, writing(output, source) as target, progress_bar(quiet=as_json) as progress:
        after = replay.render_plan(source, chosen, open_output=lambda kind: target, progress=progress)
    if as_json:
        print_line(after.model_dump_json(indent=2))
    else:
        print_table({"after": after})


@app.command(name="demo-song")
def demo_song(output: Annotated[Path, typer.Argument(help="Where to write the WAV file.", show_default=False)]) -> None:
    """Write half a minute of synthesised music, to try everything with."""
    from mastering.engine import demo

    with writing(output) as file:
        demo.write_demo_song(file)
    print_line(f"Half a minute of music is in {output.name}. Try: mastering master {output.name} -o master.wav")


def _write_page(report: Report, path: Path, written: Path) -> None:
    """Write the report page, with the readings of the second meters where the master is short enough for them."""
    from mastering.report.certificate import certify
    from mastering.report.page import html

    try:
        # The report is of the first format that was written, lossless before lossy, and so are the second meters'.
        with reading(written) as file:
            certificate = certify(file)
    except Fault:
        certificate = None
    try:
        path.write_text(html(report, certificate), "utf-8")
    except OSError as error:
        raise UsageError(f"cannot write the report: {os.strerror(error.errno or 0).lower()}.") from None

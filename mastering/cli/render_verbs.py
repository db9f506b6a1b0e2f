"""The verbs that render or plan a song: master, album, preview, plan, render, demo-song.

Over 250 lines, because each verb spells out its options, which are its help.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from mastering.cli.app import app
from mastering.cli.files import reading, writing
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
from mastering.cli.outcome import EPILOG, UsageError, print_line, print_remark
from mastering.cli.places import (
    STANDARD,
    check_places,
    format_of,
    is_standard_output,
    make_folder,
    name_within,
    paths_by_format,
)
from mastering.cli.terminal import Printer, print_plan, print_report, print_table, progress_bar
from mastering.contract import Effort, OutputFormat, Report


@app.command(epilog=EPILOG)
def master(
    song: Song,
    output: Annotated[
        list[Path],
        typer.Option(
            "--output",
            "-o",
            help="Where to write; the extension says the format. '-' is standard output. May be repeated.",
        ),
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
    written = [*paths.values(), *([] if report_page is None else [report_page])]
    line = _printer(written, as_json=as_json)
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
    check_places([song, *(reference or ())], written)
    with ExitStack() as stack:
        source = stack.enter_context(reading(song))
        references = [stack.enter_context(reading(path)) for path in reference or ()]
        files = {form: stack.enter_context(writing(path, source, *references)) for form, path in paths.items()}
        page = None if report_page is None else stack.enter_context(writing(report_page, source, *references))
        progress = stack.enter_context(progress_bar(quiet=as_json))
        report = pipeline.master(
            source,
            settings,
            references=references,
            open_output=files.__getitem__,
            progress=progress,
            with_costs=page is not None,
        )
        if page is not None:
            _write_page(report, page)
    if as_json:
        print_line(report.model_dump_json(indent=2))
    else:
        print_report(report, line)


@app.command()
def album(
    songs: Annotated[list[Path], typer.Argument(help="The tracks, in order.", show_default=False)],
    folder: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the masters, made if need be; names are kept.")
    ],
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
    masters = [folder / f"{path.stem}.{kind.extension}" for path in songs]
    _check_names(songs, masters)
    check_places([*songs, *(reference or ())], masters)
    make_folder(folder)
    with ExitStack() as stack:
        tracks = [stack.enter_context(reading(path)) for path in songs]
        references = [stack.enter_context(reading(path)) for path in reference or ()]
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
    from mastering.contract.presets import presets
    from mastering.engine.preview import ORIGINAL, write_previews

    settings = settings_of(target=target, amount_percent=amount, outputs=(kind,))
    paths = {
        style: folder / name_within(song.stem if song != STANDARD else "song", f" ({style}).{kind.extension}")
        for style in (ORIGINAL, *presets().styles)
    }
    check_places([song, *(reference or ())], list(paths.values()))
    make_folder(folder)
    with ExitStack() as stack:
        source = stack.enter_context(reading(song))
        references = [stack.enter_context(reading(path)) for path in reference or ()]
        progress = stack.enter_context(progress_bar(quiet=False))

        def open_output(style: str) -> BinaryIO:
            return stack.enter_context(writing(paths[style], source, *references))

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
    check_places([song, *(reference or ())])
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
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where to write; .wav or .flac, or '-' with --format.")
    ],
    kind: Annotated[
        OutputFormat | None, typer.Option("--format", "-f", help="Instead of the extension's format.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Render SONG by a finished plan: the same samples as when the plan was made."""
    from mastering.engine import replay

    form = kind or format_of(output)
    line = _printer([output], as_json=as_json)
    check_places([song, plan_file], [output])
    with reading(plan_file) as file:
        chosen = replay.read_plan(file)
    chosen = with_output(chosen, form)
    with reading(song) as source, writing(output, source) as target, progress_bar(quiet=as_json) as progress:
        after = replay.render_plan(source, chosen, open_output=lambda kind: target, progress=progress)
    if as_json:
        print_line(after.model_dump_json(indent=2))
    else:
        print_table({"after": after}, line)


@app.command(name="demo-song")
def demo_song(output: Annotated[Path, typer.Argument(help="Where to write the WAV file.", show_default=False)]) -> None:
    """Write half a minute of synthesised music, to try everything with."""
    from mastering.engine import demo

    check_places([], [output])
    with writing(output) as file:
        demo.write_demo_song(file)
    if not is_standard_output(output):
        print_line(f"Half a minute of music is in {output.name}. Try: mastering master {output.name} -o master.wav")


def _printer(outputs: Sequence[Path], *, as_json: bool = False) -> Printer:
    """Where results are printed: on standard output unless it gets one of the outputs. Raises for both at once."""
    if not any(map(is_standard_output, outputs)):
        return print_line
    if as_json:
        raise typer.BadParameter("standard output can't hold both an output and what --json prints.")
    return print_remark


def _check_names(songs: Sequence[Path], masters: Sequence[Path]) -> None:
    """Raise UsageError where two masters would have one name, for file systems that ignore case too."""
    found: dict[str, Path] = {}
    for song, master_path in zip(songs, masters, strict=True):
        if song == STANDARD:
            raise UsageError("the masters of an album have the names of its songs, and standard input has none.")
        name = unicodedata.normalize("NFC", master_path.name).casefold()
        if name in found:
            raise UsageError(f"{found[name]} and {song} would both become {master_path}. Rename one of them.")
        found[name] = song


def _write_page(report: Report, page: BinaryIO) -> None:
    from mastering.report.page import html

    page.write(html(report).encode())

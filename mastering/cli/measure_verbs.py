"""The verbs that write no file: analyse, compare, certify, verify-plan, presets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import typer

from mastering.cli.app import app
from mastering.cli.files import reading
from mastering.cli.options import AsJson, Ceiling, Loudness, Song, TargetOption, settings_of, with_output
from mastering.cli.outcome import print_line
from mastering.cli.places import check_places
from mastering.cli.terminal import print_table
from mastering.contract import Fault, FaultCode, Measurements, OutputFormat


@app.command()
def analyse(song: Song, as_json: AsJson = False) -> None:
    """Measure SONG: loudness, range, true peak, crest, stereo."""
    measured = _measure(song, with_character=as_json)
    if as_json:
        print_line(measured.model_dump_json(indent=2))
    else:
        print_table({"": measured})


@app.command()
def compare(first: Song, second: Song, as_json: AsJson = False) -> None:
    """Measure FIRST and SECOND side by side, as before and after."""
    check_places([first, second])
    pair = {"first": _measure(first), "second": _measure(second)}
    if as_json:
        print_line(json.dumps({name: found.model_dump(mode="json") for name, found in pair.items()}, indent=2))
    else:
        print_table(pair)


@app.command()
def certify(
    master_file: Annotated[Path, typer.Argument(metavar="MASTER", help="A finished master, in any format.")],
    target: TargetOption = "streaming",
    loudness: Loudness = None,
    ceiling: Ceiling = None,
    as_json: AsJson = False,
) -> None:
    """Measure MASTER by two sets of meters that share no code, and say whether both find it within the target.

    Ours, and pyloudnorm (De Man's filters) with a true peak by soxr at 16 x. Exit code 34 if one of them does not, or
    if they disagree.
    """
    from mastering.engine import plan, read_back, verify
    from mastering.engine.progress import Lane

    settings = settings_of(target=target, loudness_lufs=loudness, ceiling_dbtp=ceiling)
    with reading(master_file) as file:
        read = read_back.read_back(file, 0, Lane(), 0.0)
    target_lufs, ceiling_dbtp = plan.loudness_lufs(settings), plan.ceiling_dbtp(settings)
    readings = {"ours": read.readings(), "pyloudnorm and soxr": read.second or read.readings()}
    missed = [name for name, found in readings.items() if not verify.meets(found, target_lufs, ceiling_dbtp)]
    holds = not missed and not read.disagreements
    if as_json:
        body = {name: found.model_dump() for name, found in readings.items()}
        print_line(
            json.dumps(
                {"target_lufs": target_lufs, "ceiling_dbtp": ceiling_dbtp, "readings": body, "holds": holds},
                indent=2,
            )
        )
    else:
        print_line(f"{'asked for':20} {target_lufs:7.2f} LUFS {ceiling_dbtp:6.2f} dBTP")
        for name, found in readings.items():
            lufs = "silent" if found.integrated_lufs is None else f"{found.integrated_lufs:7.2f}"
            print_line(f"{name:20} {lufs} LUFS {found.true_peak_dbtp:6.2f} dBTP")
    if read.disagreements:
        raise Fault(FaultCode.BAD_MASTER, f"The meters disagree: {'; '.join(read.disagreements)}.")
    if missed:
        raise Fault(FaultCode.BAD_MASTER, f"The master is not within the target by {' and by '.join(missed)}.")


@app.command(name="verify-plan")
def verify_plan(
    song: Song,
    master_file: Annotated[Path, typer.Argument(metavar="MASTER", help="The 24-bit master made by the plan.")],
    plan_file: Annotated[Path, typer.Option("--plan", help="The plan or report, as JSON.")],
) -> None:
    """Prove that MASTER is what the plan makes of SONG: render it again and subtract (the null test)."""
    from tempfile import TemporaryFile

    from mastering.engine import replay
    from mastering.engine.plan import plan_hash

    check_places([song, master_file, plan_file])
    with reading(plan_file) as file:
        chosen = replay.read_plan(file)
    chosen = with_output(chosen, OutputFormat.WAV24)
    with reading(song) as source, reading(master_file) as delivered, TemporaryFile() as again:
        replay.render_plan(source, chosen, open_output=lambda kind: cast(BinaryIO, again))
        steps = replay.difference_steps(cast(BinaryIO, again), delivered)
    print_line(f"plan {plan_hash(chosen)}")
    if steps:
        what = "another length, rate or number of channels" if steps < 0 else f"up to {steps} steps of 24 bits"
        raise Fault(FaultCode.BAD_MASTER, f"The null test fails: {what}. Another song or plan made this master.")
    print_line("The null test holds: not one sample differs.")


@app.command(name="presets")
def list_presets(as_json: AsJson = False) -> None:
    """List the delivery targets and the styles."""
    from mastering.contract.presets import presets

    known = presets()
    if as_json:
        print_line(known.model_dump_json(indent=2, by_alias=True))
        return
    for name, target in known.targets.items():
        print_line(
            f"target {name:16} {target.loudness_lufs:6.1f} LUFS {target.ceiling_dbtp:5.1f} dBTP  {target.purpose}"
        )
    for name, style in known.styles.items():
        print_line(f"style  {name:16} {style.purpose}")


def _measure(path: Path, *, with_character: bool = False) -> Measurements:
    from mastering.engine import inputs

    with reading(path) as source:
        return inputs.measure(source, with_character=with_character)

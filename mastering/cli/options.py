"""The options that several verbs share, and the settings they make."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from mastering.contract import Effort, Fault, FaultCode, OutputFormat, Plan, Settings

Song = Annotated[Path, typer.Argument(help="The song: WAV, FLAC, MP3, Ogg, AIFF or M4A.", show_default=False)]
TargetOption = Annotated[
    str, typer.Option("--target", "-t", help="Where the master goes; `mastering presets` lists them.")
]
StyleOption = Annotated[str, typer.Option("--style", "-s", help="The sound; `mastering presets` lists them.")]
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


def settings_of(**asked: Any) -> Settings:
    """Settings from the options. Raises Fault(bad_settings), which names the option."""
    from mastering.contract import presets

    try:
        settings = Settings(**asked)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0]).split("_")[0]
        raise Fault(FaultCode.BAD_SETTINGS, f"--{name}: {first['msg'].lower()}.") from None
    presets.check(settings)
    return settings


def with_output(chosen: Plan, form: OutputFormat) -> Plan:
    """The plan with that format alone to be written."""
    return chosen.model_copy(update={"settings": chosen.settings.model_copy(update={"outputs": (form,)})})

"""The options that several verbs share, and the settings they make."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError

from mastering.contract import Effort, Fault, FaultCode, OutputFormat, Plan, Settings

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def _completed(kind: Literal["targets", "styles"]) -> Callable[[typer.Context, str], list[tuple[str, str]]]:
    """What the shell offers for an option that takes a preset: names, each with what it is for."""

    def names(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        from mastering.contract.presets import presets

        if own := context.find_root().params.get("own_presets"):
            os.environ["MASTERING_PRESETS"] = str(own)
        try:
            known = getattr(presets(), kind)
        except Fault:  # said when the command is run
            return []
        return [(name, one.purpose) for name, one in known.items() if name.startswith(incomplete)]

    return names


Song = Annotated[
    Path,
    typer.Argument(
        help="The song: WAV, FLAC, MP3, Ogg, AIFF or M4A; '-' is standard input, and may be a pipe.", show_default=False
    ),
]
TargetOption = Annotated[
    str,
    typer.Option(
        "--target",
        "-t",
        help="Where the master goes; `mastering presets` lists them.",
        autocompletion=_completed("targets"),
    ),
]
StyleOption = Annotated[
    str,
    typer.Option(
        "--style", "-s", help="The sound; `mastering presets` lists them.", autocompletion=_completed("styles")
    ),
]
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


_OF_FIELDS = {
    "amount_percent": ("amount", " percent"),
    "loudness_lufs": ("loudness", " LUFS"),
    "ceiling_dbtp": ("ceiling", " dBTP"),
    "rate_hz": ("rate", " Hz"),
    "max_crest_loss_db": ("max-crest-loss", " dB"),
    "reference_weights": ("weight", ""),
}
"""Field of the settings → the option that sets it, where that has another name, and its unit."""
_RULES = {
    "greater_than_equal": "at least {ge:g}{unit}",
    "less_than_equal": "at most {le:g}{unit}",
    "greater_than": "more than {gt:g}{unit}",
    "finite_number": "a finite number",
    "too_long": "given at most {max_length} times",
    "string_pattern_mismatch": "made of a-z, 0-9, '-' and '_'",
}
"""Pydantic's name of a mistake → what the option must be."""


def settings_of(**asked: Any) -> Settings:
    """Settings from the options. Raises Fault(bad_settings), which says of each wrong option what it takes."""
    from mastering.contract.presets import presets

    known: dict[str, Mapping[str, object]] = {"target": presets().targets, "style": presets().styles}
    wrong = {
        name: f"--{name}: there is no {name} '{asked[name][:40]}', choose one of {', '.join(sorted(choices))}"
        for name, choices in known.items()
        if asked.get(name, next(iter(choices))) not in choices
    }
    try:
        settings = Settings(**asked)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
    else:
        if not wrong:
            return settings
        mistakes = []
    said = [_mistake(each) for each in mistakes if each["loc"][0] not in wrong]
    raise Fault(FaultCode.BAD_SETTINGS, f"{'; '.join([*wrong.values(), *said])}.")


def _mistake(error: ErrorDetails) -> str:
    field = str(error["loc"][0])
    option, unit = _OF_FIELDS.get(field, (field, ""))
    rule = _RULES.get(error["type"], error["msg"].lower()).format(unit=unit, **error.get("ctx", {}))
    given = error["input"]
    was = f", not {given:g}" if isinstance(given, float | int) else f", not '{given}'" if isinstance(given, str) else ""
    return f"--{option} must be {rule}{was}"


def with_output(chosen: Plan, form: OutputFormat) -> Plan:
    """The plan with that format alone to be written."""
    return chosen.model_copy(update={"settings": chosen.settings.model_copy(update={"outputs": (form,)})})

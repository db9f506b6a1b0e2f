"""Several formats from one render, side by side: the same bytes, one thread that tells progress, one end for all."""

import io
import threading

import pytest

from mastering.contract import Fault, FaultCode, OutputFormat, Settings, Stage
from mastering.engine import delivery, inputs, pipeline
from tests.mastering.sound import loud_mix, master, music, wav

_LOSSLESS = (OutputFormat.WAV24, OutputFormat.WAV16, OutputFormat.FLAC, OutputFormat.ALAC)
_ALL = tuple(OutputFormat)


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "cores", lambda: 4)


def _alone(song: bytes, kind: OutputFormat, settings: Settings) -> bytes:
    return master(song, settings.model_copy(update={"outputs": (kind,)}))[1][kind]


@pytest.mark.usefixtures("cores")
def test_a_lossless_master_has_the_same_bytes_alone_and_beside_nine_others() -> None:
    song = wav(music(seconds=4))
    _, together = master(song, Settings(outputs=_ALL))
    assert set(together) == set(_ALL)
    for kind in _LOSSLESS:
        assert _alone(song, kind, Settings()) == together[kind], kind


@pytest.mark.usefixtures("cores")
def test_a_song_too_long_to_keep_is_read_by_several_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    song = wav(music(seconds=6), subtype="PCM_24", container="FLAC")
    settings = Settings(style="warm", outputs=(OutputFormat.FLAC, OutputFormat.MP3, OutputFormat.VORBIS))
    _, kept = master(song, settings)
    monkeypatch.setattr(inputs, "KEEP_SAMPLES", 0)
    report, streamed = master(song, settings)
    assert report.after.frames == report.before.frames
    assert kept[OutputFormat.FLAC] == streamed[OutputFormat.FLAC]
    assert kept[OutputFormat.MP3] == streamed[OutputFormat.MP3]


@pytest.mark.usefixtures("cores")
def test_one_formats_lower_ceiling_is_no_other_formats() -> None:
    song, loud = wav(loud_mix(seconds=5)), Settings(target="cd")
    _, together = master(song, loud.model_copy(update={"outputs": (OutputFormat.MP3, OutputFormat.AAC)}))
    for kind in (OutputFormat.MP3, OutputFormat.AAC):
        assert _alone(song, kind, loud) == together[kind], kind


@pytest.mark.usefixtures("cores")
def test_progress_is_told_by_the_callers_thread_alone_and_never_goes_back() -> None:
    told: list[tuple[int, float]] = []
    master(
        wav(music(seconds=8)),
        Settings(outputs=(OutputFormat.WAV24, OutputFormat.MP3, OutputFormat.AAC)),
        progress=lambda stage, fraction: told.append((threading.get_ident(), fraction)),
    )
    assert {thread for thread, _ in told} == {threading.get_ident()}
    fractions = [fraction for _, fraction in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


class _Enough(Exception):
    """What the caller raises to end a render."""


@pytest.mark.usefixtures("cores")
def test_what_progress_raises_ends_every_format_and_leaves_no_thread() -> None:
    def progress(stage: Stage, fraction: float) -> None:
        if stage in (Stage.ENCODE, Stage.VERIFY):
            raise _Enough

    before = threading.active_count()
    with pytest.raises(_Enough):
        master(wav(music(seconds=20)), Settings(outputs=_ALL), progress=progress)
    assert threading.active_count() == before


@pytest.mark.usefixtures("cores")
def test_one_format_that_fails_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[OutputFormat] = []

    def encode(audio: object, kind: OutputFormat, target: object, *, seed: int, tick: object) -> None:
        written.append(kind)
        if kind is OutputFormat.MP3:
            raise Fault(FaultCode.BAD_MASTER, "no")
        real(audio, kind, target, seed=seed, tick=tick)  # type: ignore[arg-type]

    real = delivery.encode.encode
    monkeypatch.setattr(delivery.encode, "encode", encode)
    before = threading.active_count()
    with pytest.raises(Fault) as caught:
        pipeline.master(
            io.BytesIO(wav(music(seconds=20))),
            Settings(outputs=_ALL),
            open_output=lambda kind: io.BytesIO(),
        )
    assert caught.value.message == "no"
    assert threading.active_count() == before
    assert len(written) < len(_ALL)

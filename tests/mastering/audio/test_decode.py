"""Decoding: every format that is promised is read, and every bad file is refused by name."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mastering.audio import decode, encode, loading
from mastering.contract import MAX_INPUT_BYTES, Fault, FaultCode, OutputFormat
from tests.hostile_audio import all_hostile, encoded
from tests.mastering.sound import ffmpeg, music, wav


def _load(data: bytes) -> np.ndarray:
    audio = loading.load(decode.open_recording(io.BytesIO(data)), keep_samples=10**8, tick=lambda frames: None)
    return np.concatenate(list(audio.read()), axis=1)


def _fault(data: bytes) -> FaultCode:
    with pytest.raises(Fault) as caught:
        _load(data)
    assert "/" not in caught.value.message
    return caught.value.code


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "libvorbis"), ("aiff", "pcm_s24be"),
     ("m4a", "aac"), ("m4a", "alac"), ("opus", "libopus"), ("webm", "libopus"), ("mov", "aac")],
)  # fmt: skip
def test_every_promised_format_decodes_to_the_same_music(suffix: str, codec: str, tmp_path: Path) -> None:
    song = music(48_000, seconds=4)
    (tmp_path / "in.wav").write_bytes(wav(song, 48_000))
    path = tmp_path / f"song.{suffix}"
    ffmpeg("-i", tmp_path / "in.wav", "-c:a", codec, "-b:a", "256k", path)
    decoded = _load(path.read_bytes())
    # Coders may add or drop a few frames at the ends; the music in the middle is found by correlation.
    middle = song[0, 48_000:96_000]
    lags = np.correlate(decoded[0, 40_000:104_000], middle, "valid")
    energy = float(np.sqrt(np.dot(middle, middle)))
    best = int(lags.argmax())
    found = decoded[0, 40_000 + best : 40_000 + best + middle.size]
    assert lags[best] / (energy * np.linalg.norm(found)) > 0.99


def test_an_empty_file_is_named_so() -> None:
    assert _fault(b"") is FaultCode.EMPTY_FILE


def test_text_renamed_wav_is_no_audio() -> None:
    assert _fault(b"These are the lyrics, not the song.\n" * 50) is FaultCode.UNSUPPORTED_FORMAT


@pytest.mark.parametrize(
    ("container", "subtype"), [("FLAC", "PCM_24"), ("WAV", "PCM_24"), ("AIFF", "PCM_16"), ("OGG", "VORBIS")]
)
@pytest.mark.parametrize("share", [0.3, 0.95])
def test_a_file_cut_off_is_called_truncated(container: str, subtype: str, share: float) -> None:
    whole = wav(music(seconds=4), subtype=subtype, container=container)
    assert _fault(whole[: int(len(whole) * share)]) is FaultCode.TRUNCATED


def test_an_m4a_cut_off_is_called_truncated(tmp_path: Path) -> None:
    (tmp_path / "in.wav").write_bytes(wav(music(seconds=4)))
    ffmpeg("-i", tmp_path / "in.wav", "-c:a", "aac", tmp_path / "song.m4a")
    whole = (tmp_path / "song.m4a").read_bytes()
    assert _fault(whole[: len(whole) // 2]) is FaultCode.TRUNCATED


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(bad: float) -> None:
    song = music(seconds=4)
    song[1, 100_000] = bad
    assert _fault(wav(song)) is FaultCode.NOT_FINITE


def test_silence_is_refused() -> None:
    assert _fault(wav(np.zeros((2, 88_200), np.float32), subtype="PCM_16")) is FaultCode.SILENT


def test_less_than_a_second_is_too_short() -> None:
    assert _fault(wav(music(seconds=0.9))) is FaultCode.TOO_SHORT


def test_three_channels_are_too_many() -> None:
    assert _fault(wav(np.ones((3, 88_200), np.float32) * 0.1)) is FaultCode.TOO_MANY_CHANNELS


@pytest.mark.parametrize("rate_hz", [4_000, 352_800])
def test_a_sample_rate_out_of_range_is_refused(rate_hz: int) -> None:
    assert _fault(wav(music(seconds=2), rate_hz)) is FaultCode.UNSUPPORTED_RATE


def _outcome(data: bytes) -> FaultCode | str:
    try:
        return f"{_load(data).shape[1]} frames"
    except Fault as fault:
        return fault.code


def test_every_hostile_file_is_refused_as_the_probe_refuses_it() -> None:
    hostile = all_hostile()
    found = {name: _outcome(data) for name, (data, _) in hostile.items()}
    assert {name: code for name, code in found.items() if code not in hostile[name][1]} == {}


def test_a_codec_that_nobody_knows_is_unsupported() -> None:
    """FFmpeg has no decoder for it, and so no context either."""
    unknown = encoded("mp4", "alac").replace(b"alac", b"zlac")
    assert _outcome(unknown) is FaultCode.UNSUPPORTED_FORMAT


@pytest.mark.parametrize(("peak_dbfs", "is_silent"), [(-81.0, True), (-79.0, False)])
def test_silence_is_what_the_probe_calls_so(peak_dbfs: float, is_silent: bool) -> None:
    quiet = np.full((2, 88_200), 10 ** (peak_dbfs / 20), np.float32)
    assert (_outcome(wav(quiet)) is FaultCode.SILENT) == is_silent


class _Huge(io.BytesIO):
    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return MAX_INPUT_BYTES + 1 if whence == io.SEEK_END else super().seek(offset, whence)


def test_a_file_over_the_limit_is_too_large() -> None:
    with pytest.raises(Fault) as caught:
        decode.open_recording(_Huge(b"RIFF"))
    assert caught.value.code is FaultCode.TOO_LARGE
    assert "512 MiB" in caught.value.message


def test_three_hours_are_refused_from_the_header_alone() -> None:
    hours = wav(np.ones((1, 3 * 3600 * 8000), np.float32) * 0.1, 8000, subtype="PCM_U8")
    with pytest.raises(Fault) as caught:
        decode.open_recording(io.BytesIO(hours))
    assert caught.value.code is FaultCode.TOO_LONG
    assert "90 minutes" in caught.value.message


def test_decoding_stops_where_a_lying_header_passes_the_limit() -> None:
    # A FLAC that promises an unknown length (0 frames) and holds 91 minutes.
    whole = bytearray(wav(np.zeros((1, 91 * 60 * 8000), np.float32), 8000, subtype="PCM_16", container="FLAC"))
    packed = struct.unpack(">Q", whole[18:26])[0]
    whole[18:26] = struct.pack(">Q", packed >> 36 << 36)
    decoded = 0

    def count(frames: int) -> None:
        nonlocal decoded
        decoded += frames

    with pytest.raises(Fault) as caught:
        loading.load(decode.open_recording(io.BytesIO(bytes(whole))), keep_samples=10**8, tick=count)
    assert caught.value.code is FaultCode.TOO_LONG
    assert decoded <= 90 * 60 * 8000


def test_damage_inside_a_file_is_a_fault_and_no_traceback() -> None:
    whole = bytearray(wav(music(seconds=4), subtype="PCM_24", container="FLAC"))
    whole[len(whole) // 2 : len(whole) // 2 + 4000] = b"\x55" * 4000
    with pytest.raises(Fault) as caught:
        _load(bytes(whole))
    assert caught.value.code in (FaultCode.TRUNCATED, FaultCode.UNDECODABLE)


def test_an_mp3_without_a_length_is_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "in.wav").write_bytes(wav(music(seconds=6)))
    ffmpeg("-i", tmp_path / "in.wav", "-c:a", "libmp3lame", "-q:a", "2", "-write_xing", "0", tmp_path / "song.mp3")
    assert _load((tmp_path / "song.mp3").read_bytes()).shape[1] == pytest.approx(6 * 44_100, abs=4000)


def test_output_reads_back_as_written_in_every_format() -> None:
    song = music(seconds=3)
    for kind, worst in ((OutputFormat.WAV24, 2**-22), (OutputFormat.WAV16, 2**-14)):
        target = io.BytesIO()
        audio = loading.load(decode.open_recording(io.BytesIO(wav(song))), keep_samples=10**8, tick=lambda n: None)
        encode.encode(audio, kind, target, seed=3, tick=lambda n: None)
        read, _ = soundfile.read(io.BytesIO(target.getvalue()), always_2d=True)
        assert np.abs(read.T - song).max() < worst

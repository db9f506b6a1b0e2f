"""The faults by which the engine refuses a song: what is wrong with the file, in numbers, and what to do about it."""

from __future__ import annotations

from mastering.contract import MAX_CHANNELS, MAX_DURATION_S, MAX_RATE_HZ, MIN_DURATION_S, MIN_RATE_HZ, Fault, FaultCode
from mastering.contract.limits import SILENCE_DBFS


def empty_song() -> Fault:
    return Fault(FaultCode.EMPTY_FILE, "The file is empty (0 bytes). Choose the file again, or export it anew.")


def oversized_song(size_bytes: int, allowed_bytes: int) -> Fault:
    return Fault(
        FaultCode.TOO_LARGE,
        f"The file has {size_bytes / 2**20:.0f} MiB; at most {allowed_bytes // 2**20} MiB are allowed. "
        "Send it as FLAC, or in parts.",
        bytes=size_bytes,
        allowed=allowed_bytes,
    )


def unsupported_song(message: str) -> Fault:
    return Fault(FaultCode.UNSUPPORTED_FORMAT, message)


def unread_coding_song() -> Fault:
    return unsupported_song("The audio inside is coded in a way that is not read here. Export it as WAV or FLAC.")


def soundless_song() -> Fault:
    return unsupported_song("There is no sound in this file. Send one that has an audio track.")


def changing_song() -> Fault:
    return unsupported_song(
        "The recording changes its sample rate or its channels midway. Export it as one WAV or FLAC."
    )


def demanding_song() -> Fault:
    return Fault(
        FaultCode.RESOURCE_LIMIT,
        "Decoding this file wanted more time or memory than an honest recording needs. Export it as WAV or FLAC.",
    )


def truncated_song() -> Fault:
    return Fault(
        FaultCode.TRUNCATED,
        "The file ends before the audio that its header promises: it was cut off, probably in transfer. Send it again.",
    )


def undecodable_song() -> Fault:
    return Fault(
        FaultCode.UNDECODABLE,
        "The file is damaged or holds no audio that we can decode. Export it again, as WAV or FLAC.",
    )


def many_channel_song(channels: int) -> Fault:
    return Fault(
        FaultCode.TOO_MANY_CHANNELS,
        f"The file has {channels} channels; mono and stereo are mastered here. Export a stereo mix.",
        channels=channels,
        allowed=MAX_CHANNELS,
    )


def unsupported_rate_song(rate_hz: int) -> Fault:
    return Fault(
        FaultCode.UNSUPPORTED_RATE,
        f"The sample rate is {rate_hz} Hz; {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz are allowed. Export at 44100 or 48000 Hz.",
        rate_hz=rate_hz,
    )


def overlong_song(seconds: float) -> Fault:
    return Fault(
        FaultCode.TOO_LONG,
        f"The audio lasts {seconds / 60:.1f} minutes or more; at most {MAX_DURATION_S // 60} minutes are allowed. "
        "Send it in parts.",
        minutes=round(seconds / 60, 1),
        allowed=MAX_DURATION_S // 60,
    )


def short_song(seconds: float) -> Fault:
    return Fault(
        FaultCode.TOO_SHORT,
        f"The audio lasts {seconds:.2f} s; at least {MIN_DURATION_S:.0f} s is needed.",
        seconds=round(seconds, 3),
        allowed=MIN_DURATION_S,
    )


def not_finite_song(seconds: float) -> Fault:
    return Fault(
        FaultCode.NOT_FINITE,
        f"The audio holds samples that are no sound (NaN, infinity or beyond +120 dBFS), first near {seconds:.1f} s. "
        "Export it again without the plug-in that makes them.",
    )


def silent_song() -> Fault:
    level = f"−{abs(SILENCE_DBFS):.0f}"
    return Fault(FaultCode.SILENT, f"The audio is silent (no sample above {level} dBFS). Check what was exported.")

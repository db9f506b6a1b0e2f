"""Several songs as one album, and the report page that stands alone."""

import io
from html.parser import HTMLParser

import numpy as np
import pytest

from mastering.contract import OutputFormat, Plan, Settings
from mastering.dsp import loudness
from mastering.dsp.spectrum import band_centres_hz
from mastering.dsp.stream import stored
from mastering.dsp.true_peak import block_length
from mastering.engine import inputs, pipeline, render
from mastering.engine.album import master_album
from mastering.engine.steps import shaping_gains
from mastering.engine.traces import traces
from mastering.report.page import html
from tests.mastering.sound import loud_mix, music, wav


def _album(tracks: list[bytes]) -> list[io.BytesIO]:
    outputs = [io.BytesIO() for _ in tracks]

    def open_output(number: int, kind: OutputFormat) -> io.BytesIO:
        return outputs[number]

    master_album([io.BytesIO(track) for track in tracks], Settings(), open_output=open_output)
    return outputs


def test_an_album_keeps_its_tracks_apart_and_its_loudest_at_the_target() -> None:
    tracks = [wav(music(seconds=5) * np.float32(0.3)), wav(loud_mix(seconds=5))]
    before = [inputs.measure(io.BytesIO(track)).integrated_lufs for track in tracks]
    after = [inputs.measure(output).integrated_lufs for output in _album(tracks)]
    assert after[1] == pytest.approx(-14, abs=0.1)
    assert None not in before
    assert after[0] - after[1] == pytest.approx(before[0] - before[1], abs=0.2)  # type: ignore[operator]


def test_a_track_that_may_go_no_louder_takes_its_album_along_and_that_is_said() -> None:
    dense, sparse = loud_mix(seconds=4), music(seconds=4)
    sparse *= np.float32(0.02)
    sparse[:, ::22_050] = 0.9
    tracks = [wav(dense), wav(sparse)]
    before = [inputs.measure(io.BytesIO(track)).integrated_lufs or 0.0 for track in tracks]
    outputs = [io.BytesIO() for _ in tracks]
    reports = master_album(
        [io.BytesIO(track) for track in tracks],
        Settings(target="club"),
        open_output=lambda number, kind: outputs[number],
    )
    after = [inputs.measure(output).integrated_lufs or 0.0 for output in outputs]
    assert after[0] < -8.5
    assert after[0] - after[1] == pytest.approx(before[0] - before[1], abs=0.2)
    for report in reports:
        assert any("because its track 2 may go no louder" in flag for flag in report.flags)


def _tone_db(plan: Plan) -> np.ndarray:
    """What the board gives to the third octaves of the mid from 63 Hz to 10 kHz."""
    centres = np.array([hz for hz in band_centres_hz(44_100) if 60 < hz < 12_000])
    found: np.ndarray = 20 * np.log10(shaping_gains(plan, centres)[0])
    return found


def test_an_albums_tracks_share_one_tone() -> None:
    tracks = [io.BytesIO(wav(music(seconds=4))), io.BytesIO(wav(loud_mix(seconds=4)))]
    reports = master_album(tracks, Settings(style="warm"), open_output=lambda number, kind: io.BytesIO())
    first, second = (_tone_db(report.plan) for report in reports)
    assert np.abs(first).max() > 0.5
    np.testing.assert_allclose(first, second, atol=1e-9)


def test_tracks_keep_their_own_rates_and_channels_and_share_one_tone() -> None:
    shapes = [(44_100, 2, 0.5), (96_000, 2, 0.25), (48_000, 1, 0.2)]
    tracks = [
        wav(music(rate, channels, seconds=4) * np.float32(gain), rate, subtype="PCM_24")
        for rate, channels, gain in shapes
    ]
    outputs = [io.BytesIO() for _ in tracks]
    reports = master_album(
        [io.BytesIO(track) for track in tracks],
        Settings(style="warm"),
        open_output=lambda number, kind: outputs[number],
    )
    assert [(r.after.rate_hz, r.after.channels) for r in reports] == [(rate, channels) for rate, channels, _ in shapes]
    before = [report.before.integrated_lufs or 0 for report in reports]
    after = [inputs.measure(output).integrated_lufs or 0 for output in outputs]
    assert max(after) == pytest.approx(-14, abs=0.1)
    for number in range(3):
        assert after[number] - max(after) == pytest.approx(before[number] - max(before), abs=0.2)
    tones = [_tone_db(report.plan) for report in reports]
    assert np.ptp(tones, axis=0).max() < 0.2
    assert np.abs(tones[0]).max() > 0.5


def test_an_albums_tracks_come_at_one_rate_where_one_is_asked_for() -> None:
    tracks = [io.BytesIO(wav(music(rate, seconds=2), rate)) for rate in (44_100, 48_000)]
    reports = master_album(tracks, Settings(rate_hz=48_000), open_output=lambda number, kind: io.BytesIO())
    assert [report.after.rate_hz for report in reports] == [48_000, 48_000]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_page_shows_every_plot_and_needs_nothing_from_elsewhere() -> None:
    reference = wav(loud_mix(seconds=4))
    report = pipeline.master(
        io.BytesIO(wav(music(seconds=8))),
        Settings(target="cd"),
        references=[io.BytesIO(reference)],
        open_output=lambda kind: io.BytesIO(),
        with_costs=True,
    )
    page = _Page()
    page.feed(html(report))
    assert page.tags.count("svg") == 4
    assert page.addresses == []
    assert "script" not in page.tags
    for words in (
        "reference",
        "Gain reduction",
        "Cost of loudness",
        "Spotify",
        "pyloudnorm",
        *(s.reason for s in report.plan.steps),
    ):
        assert words in page.text


def test_every_report_has_readings_over_time_and_only_one_that_asks_has_costs() -> None:
    report = pipeline.master(io.BytesIO(wav(music(seconds=8))), Settings(), open_output=lambda kind: io.BytesIO())
    found = report.traces
    assert found is not None
    assert (found.step_s, found.costs) == (1, ())
    assert [len(found.loudness_before_lufs), len(found.loudness_after_lufs), len(found.gain_reduction_db)] == [6, 6, 8]
    loudest = max(level for level in found.loudness_after_lufs if level is not None)
    assert loudest == pytest.approx(report.after.max_short_term_lufs, abs=1)
    assert max(found.gain_reduction_db) <= 0
    page = html(report)
    assert page.count("<svg") == 3
    assert "would cost" not in page


def test_readings_of_the_longest_song_stay_few() -> None:
    energies = np.full(90 * 60 * loudness.BLOCKS_PER_S, 0.01)
    peaks = np.full(90 * 60 * 8000 // block_length(8000), 0.5, np.float32)
    song = render.ShapedSong(stored(np.broadcast_to(np.float32(0), (2, 90 * 60 * 8000)), 8000), peaks, energies)
    chosen = pipeline.make_plan(io.BytesIO(wav(music(seconds=4))), Settings())
    found = traces(song, chosen, energies, energies, with_costs=False)
    assert found.step_s == 18
    assert len(found.loudness_before_lufs) == len(found.gain_reduction_db) == 300
    assert len(found.model_dump_json()) < 7000


def test_the_cost_of_loudness_grows_with_loudness() -> None:
    report = pipeline.master(
        io.BytesIO(wav(music(seconds=6))), Settings(), open_output=lambda kind: io.BytesIO(), with_costs=True
    )
    assert report.traces is not None
    limited = [cost.limited_percent for cost in report.traces.costs]
    assert limited == sorted(limited)
    assert limited[-1] > limited[0]
    taken = [cost.mean_reduction_db for cost in report.traces.costs]
    assert taken == sorted(taken)
    assert taken[-1] > taken[0] >= 0

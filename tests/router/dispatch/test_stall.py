"""A render that lives but gets nowhere is found out, and a slow one is left alone."""

from __future__ import annotations

import pytest

from router.dispatch.stall import StallDetector


def test_half_a_minute_without_progress_is_a_stall_and_a_second_less_is_not() -> None:
    stall = StallDetector(0.0)
    assert not stall.is_stalled(30.0)
    assert stall.is_stalled(30.1)


def test_a_render_that_always_took_its_time_is_given_three_of_its_usual_gaps() -> None:
    stall = StallDetector(0.0)
    for n in range(1, 6):
        stall.progressed(20.0 * n, n / 10)
    assert stall.allowed_s() == pytest.approx(60.0)
    assert not stall.is_stalled(160.0)
    assert stall.is_stalled(160.1)


def test_a_long_song_is_given_at_least_what_its_whole_render_should_take() -> None:
    stall = StallDetector(0.0, expected_s=300.0)
    assert not stall.is_stalled(300.0)
    assert stall.is_stalled(300.1)


def test_saying_the_same_again_is_no_progress() -> None:
    stall = StallDetector(0.0)
    stall.progressed(1.0, 0.5)
    for now in range(2, 40):
        stall.progressed(float(now), 0.5)
    assert stall.is_stalled(32.0)

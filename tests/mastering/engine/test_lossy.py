"""Lossy masters, decoded by ffmpeg and read at 16 x by a meter that is not ours: none passes its ceiling."""

from pathlib import Path

import numpy as np
import pytest

from mastering.contract import OutputFormat, Settings
from tests.mastering.sound import ffmpeg, fine_true_peak_dbtp, loud_mix, master, wav

_LOSSY = [kind for kind in OutputFormat if kind.is_lossy]


@pytest.mark.parametrize("kind", _LOSSY)
def test_a_loud_lossy_master_stays_below_its_ceiling_when_ffmpeg_decodes_it(kind: OutputFormat, tmp_path: Path) -> None:
    report, made = master(wav(loud_mix(seconds=5)), Settings(target="cd", outputs=(kind,)))
    path = tmp_path / f"master.{kind.extension}"
    path.write_bytes(made[kind])
    raw = ffmpeg("-i", path, "-f", "f32le", "-").stdout
    samples = np.frombuffer(raw, np.float32).reshape(-1, 2).T
    assert fine_true_peak_dbtp(samples) <= -2.0 + 0.05
    assert report.plan.limiter is not None
    lowered_db = -2.0 - report.plan.limiter.parameters.ceiling_dbtp
    assert 0 <= lowered_db < 2.5

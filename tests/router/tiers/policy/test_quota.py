"""The quota ledger: what is left counts what is spent and what is promised, and each period starts anew."""

from __future__ import annotations

import pytest

from router.tiers.policy.estimate import AttemptTiming, Ewma, SpeedEstimate
from router.tiers.policy.quota import Quota

QUICK, FIT = "master/quick", "master/fit"
DAY_S = 86_400.0


def test_without_a_limit_there_is_always_something_left() -> None:
    quota = Quota()
    quota.settle(quota.hold(1e6, 0.0), 1e6, 0.0)
    assert quota.left_s(1.0) is None
    assert quota.out_until_s(1.0) is None


def test_what_is_promised_is_not_left_and_what_was_not_used_comes_back() -> None:
    quota = Quota(limit_s=100)
    hold = quota.hold(60, 0.0)
    assert quota.left_s(1.0) == 40
    quota.settle(hold, 10, 2.0)
    assert quota.left_s(3.0) == 90


def test_more_used_than_promised_is_spent_all_the_same_and_never_less_than_nothing_is_left() -> None:
    quota = Quota(limit_s=100)
    quota.settle(quota.hold(60, 0.0), 130, 1.0)
    assert quota.left_s(2.0) == 0
    assert quota.out_until_s(2.0) == DAY_S


def test_a_new_period_starts_with_the_whole_quota_at_its_very_second() -> None:
    quota = Quota(limit_s=100, start_s=50.0)
    quota.settle(quota.hold(100, 60.0), 100, 61.0)
    assert quota.left_s(50.0 + DAY_S - 0.1) == 0
    assert quota.left_s(50.0 + DAY_S) == 100
    assert quota.out_until_s(50.0 + DAY_S) is None


def test_a_promise_of_yesterday_does_not_come_back_today_but_its_use_counts() -> None:
    quota = Quota(limit_s=100)
    old = quota.hold(80, DAY_S - 1)
    new = quota.hold(30, DAY_S + 1)
    quota.settle(old, 20, DAY_S + 2)
    assert quota.left_s(DAY_S + 3) == 100 - 30 - 20
    quota.settle(new, 30, DAY_S + 4)
    assert quota.left_s(DAY_S + 5) == 50


@pytest.mark.parametrize(("retry_after_s", "until_s"), [(600.0, 1600.0), (None, DAY_S)])
def test_the_providers_word_overrules_the_count_until_it_said(retry_after_s: float | None, until_s: float) -> None:
    quota = Quota(limit_s=1e6)
    quota.note_exhausted(1000.0, retry_after_s)
    assert quota.left_s(until_s - 1) == 0
    assert quota.out_until_s(until_s - 1) == until_s
    assert quota.left_s(until_s) == 1e6
    assert quota.out_until_s(until_s) is None


def test_the_providers_word_counts_also_without_a_limit_of_ours() -> None:
    quota = Quota()
    quota.note_exhausted(0.0, 60.0)
    assert quota.left_s(59.0) == 0
    assert quota.left_s(60.0) is None


def test_a_steady_backend_has_no_spread_and_an_erratic_one_looks_slower_than_its_mean() -> None:
    steady = erratic = Ewma(10.0)
    for n in range(200):
        steady, erratic = steady.fold(10.0), erratic.fold(5.0 if n % 2 else 15.0)
    assert steady.cautious == pytest.approx(10.0)
    assert erratic.mean == pytest.approx(10.0, abs=1.0)
    assert 5.0 <= erratic.deviation <= 6.0
    assert erratic.cautious == pytest.approx(erratic.mean + 1.05 * erratic.deviation)


def test_a_moving_average_forgets_by_a_fifth_each_time() -> None:
    assert Ewma(10.0).fold(20.0) == Ewma(12.0, 2.0)


def test_a_pace_learns_only_from_what_was_measured_in_units_of_the_song() -> None:
    speed = SpeedEstimate(Ewma(1.0), {QUICK: Ewma(10.0)}, Ewma(2.0), Ewma(30.0))
    learned = speed.fold(AttemptTiming(render_s=40.0), size_bytes=20 * 2**20, duration_s=120.0, work=QUICK)
    assert learned == speed._replace(work_s_per_minute={QUICK: Ewma(12.0, 2.0)})
    learned = speed.fold(AttemptTiming(upload_s=40.0, fetch_s=2.0), size_bytes=20 * 2**20, duration_s=120.0, work=QUICK)
    assert learned == speed._replace(upload_s_per_mib=Ewma(1.2, 0.2), fetch_s=Ewma(2.0))


def test_a_service_is_upload_render_and_fetch_but_no_cold_start() -> None:
    speed = SpeedEstimate(Ewma(1.0), {QUICK: Ewma(10.0)}, Ewma(2.0), Ewma(30.0))
    assert speed.service_s(size_bytes=20 * 2**20, duration_s=180.0, work=QUICK) == pytest.approx(20 + 30 + 2)


def test_what_the_provider_says_is_left_bounds_what_we_count() -> None:
    quota = Quota(limit_s=100)
    quota.note_left(30, 500.0, 10.0)
    assert quota.left_s(11.0) == 30
    hold = quota.hold(12, 12.0)
    assert quota.left_s(12.0) == 18
    quota.settle(hold, 5, 13.0)
    assert quota.left_s(13.0) == 25
    quota.note_left(500, 500.0, 14.0)
    assert quota.left_s(14.0) == 95


def test_a_quota_that_the_provider_says_is_used_up_is_out_until_its_reset() -> None:
    quota = Quota()
    quota.note_left(0, 600.0, 1000.0)
    assert (quota.left_s(1001.0), quota.out_until_s(1001.0)) == (0, 1600.0)
    assert (quota.left_s(1600.0), quota.out_until_s(1600.0)) == (None, None)


def test_a_provider_that_names_no_reset_is_believed_for_a_period() -> None:
    quota = Quota()
    quota.note_left(-1, None, 0.0)
    assert quota.out_until_s(1.0) == DAY_S


def test_refined_plans_teach_their_own_pace_and_no_other() -> None:
    speed = SpeedEstimate(Ewma(1.0), {QUICK: Ewma(10.0), FIT: Ewma(40.0)}, Ewma(2.0), Ewma(30.0))
    learned = speed.fold(AttemptTiming(render_s=100.0), size_bytes=20 * 2**20, duration_s=120.0, work=FIT)
    assert learned == speed._replace(work_s_per_minute={QUICK: Ewma(10.0), FIT: Ewma(42.0, 2.0)})
    assert learned.render_s(60.0, QUICK) == 10.0
    assert learned.service_s(2**20, 60.0, FIT) == pytest.approx(1 + 42.0 + 1.05 * 2.0 + 2)

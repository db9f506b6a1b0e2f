"""P14, P46 to P50, P57, P58, P63: what is held and where songs go is told, by construction and with a date."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pytest

from ops import policy_edition
from router.core import event_log
from router.core.command_error import CommandError
from router.core.settings import RouterSettings
from router.identity import accounts_database, sessions
from router.store.record import Job
from router.tiers.connect import connect
from router.tiers.fake import FakeBackend
from router.tiers.fleet.catalogue import CatalogueEntry
from router.tiers.fleet.fleet import ConfiguredBackend
from router.tiers.fleet.member import BackendTerms
from router.web.pages import privacy_policy
from tests.served import served

OURS = ConfiguredBackend(FakeBackend("a", []), BackendTerms(region="eu-central"))
THEIRS = ConfiguredBackend(
    FakeBackend("zero", [], tier="gpu_space"), BackendTerms(region="us-east", operator="Hugging Face")
)


async def test_p49_every_tier_of_the_fleet_is_named_with_operator_and_region_and_a_new_one_at_once(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as router:
        fleet = router.services.fleet
        await fleet.replace({"a": OURS})
        before = (await router.http.get("/privacy.json")).json()
        assert [(place["tier"], place["region"]) for place in before["tiers"]] == [("managed", "eu-central")]
        await fleet.replace({"a": OURS, "zero": THEIRS})
        after = (await router.http.get("/privacy.json")).json()
        assert after["tiers"][1] == {
            "tier": "gpu_space",
            "title": "Hugging Face GPU Space",
            "operator": "Hugging Face",
            "region": "us-east",
            "third_party": True,
            "forgets": True,
        }
        assert after["tiers_version"] != before["tiers_version"]
        page = (await router.http.get("/privacy")).text
        for member in fleet.members():
            assert member.terms.region in page
            assert member.terms.operator in page


async def test_p58_an_agreement_to_the_old_tiers_does_not_cover_new_ones(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        await router.services.fleet.replace({"a": OURS})
        await router.http.put("/v1/account/consent", json={"managed_only": False})
        assert (await router.http.get("/v1/account/consent")).json()["managed_only"] is False
        await router.services.fleet.replace({"a": OURS, "zero": THEIRS})
        assert (await router.http.get("/v1/account/consent")).json()["managed_only"] is True


async def test_p58_the_page_shows_version_date_and_digest_and_they_are_those_of_the_repository(tmp_path: Path) -> None:
    current = privacy_policy.editions()[-1]
    async with served(tmp_path) as router:
        page = (await router.http.get("/privacy")).text
    assert current.digest == privacy_policy.digest()
    for text in (current.digest, f"Version {current.version}", str(current.date)):
        assert text in page


def test_p58_a_change_without_a_new_date_fails_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert policy_edition.is_current()
    monkeypatch.setattr(policy_edition, "FILE", tmp_path / "policy.toml")
    monkeypatch.setitem(event_log.book.events, "visit", {"seconds": event_log.Whole()})
    assert not policy_edition.is_current()
    policy_edition.open_edition(dt.date(2100, 1, 1))
    written = (tmp_path / "policy.toml").read_text()
    assert "date = 2100-01-01" in written
    assert privacy_policy.digest() in written
    assert str(privacy_policy.editions()[0].date) in written


def test_p58_every_part_of_what_is_said_is_bound_to_the_date(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {privacy_policy.digest()}
    monkeypatch.setattr(accounts_database, "SCHEMA", accounts_database.SCHEMA + "CREATE TABLE visits (account TEXT);")
    digests.add(privacy_policy.digest())
    monkeypatch.setattr(event_log, "DAYS_KEPT", 8)
    monkeypatch.setitem(event_log.book.events["http"], "agent", event_log.CODE_NAME)  # type: ignore[index]
    digests.add(privacy_policy.digest())
    assert len(digests) == 3


async def test_p57_what_could_be_disclosed_is_exactly_the_schemas(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        said = (await router.http.get("/privacy.json")).json()
        page = (await router.http.get("/privacy")).text
    assert set(said["log"]) == set(event_log.book.events)
    assert set(said["log"]["render"]) == set(event_log.EVENTS["render"])
    assert {*said["account"]} == {
        *re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)", accounts_database.SCHEMA + sessions.SCHEMA)
    } - {*privacy_policy._TABLES_WITHOUT_ACCOUNTS}
    assert all("account" in columns for columns in said["account"].values())
    assert said["job"] == list(Job.model_fields)
    for name in (*said["log"]["render"], *said["account"], *said["job"]):
        assert name in page


_PERSONAL = re.compile(
    r"name|mail|phone|street|address|birth|pay|card|\bip\b|agent|referer|title|file|path|locale|sub\b"
)


def test_p01_p04_no_schema_has_a_place_for_a_person_or_the_name_of_their_music() -> None:
    tables = privacy_policy._account_tables(accounts_database.SCHEMA + sessions.SCHEMA)
    assert not [column for columns in tables.values() for column in columns if _PERSONAL.search(column)]
    assert not [field for field in Job.model_fields if _PERSONAL.search(field)]
    own = {"library": {"logger"}}
    named = {
        (event, field)
        for event, fields in event_log.book.events.items()
        for field in fields
        if _PERSONAL.search(field) and field not in own.get(event, set())
    }
    assert named == set()


def test_p29_p46_p47_nothing_is_counted_of_an_account_but_the_day_s_quota() -> None:
    tables = privacy_policy._account_tables(accounts_database.SCHEMA)
    assert tables["usage"] == ["account", "day", "audio_s"]
    assert {*tables} - {"consents", "tokens", "usage"} == set()


def test_p50_a_backend_outside_the_pinned_regions_is_refused() -> None:
    entry = CatalogueEntry(name="far", tier="managed", url="https://far.example", region="us-east")
    with pytest.raises(CommandError, match="us-east"):
        connect(RouterSettings(regions=("eu-central",)), entry)
    assert connect(RouterSettings(regions=("us-east",)), entry).name == "far"


async def test_p63_security_txt_names_a_contact_and_has_not_expired(tmp_path: Path) -> None:
    async with served(tmp_path, contact="mailto:privacy@master.example") as router:
        found = await router.http.get("/.well-known/security.txt")
        page = (await router.http.get("/privacy")).text
    fields = dict(line.split(": ", 1) for line in found.text.splitlines())
    assert found.headers["content-type"].startswith("text/plain")
    assert fields["Contact"] == "mailto:privacy@master.example"
    left = dt.datetime.fromisoformat(fields["Expires"]) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=30) < left < dt.timedelta(days=366)
    assert 'href="mailto:privacy@master.example"' in page


async def test_p63_without_a_contact_there_is_no_security_txt_and_the_page_says_so(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        assert (await router.http.get("/.well-known/security.txt")).status_code == 404
        assert "has not named a contact" in (await router.http.get("/privacy")).text


@pytest.mark.parametrize("path", ["/", "/docs", "/privacy", "/errors/gone"])
async def test_p63_every_page_links_to_the_policy(tmp_path: Path, path: str) -> None:
    async with served(tmp_path) as router:
        assert 'href="/privacy"' in (await router.http.get(path)).text


async def test_p15_where_the_router_is_a_space_the_page_says_that_all_passes_through_its_host(tmp_path: Path) -> None:
    async with served(tmp_path, profile="space") as router:
        page = (await router.http.get("/privacy")).text
    assert "runs as a Hugging Face Space" in page
    assert "is not offered here" in page


@pytest.mark.parametrize(
    "other",
    [
        BackendTerms(operator="a stranger"),
        BackendTerms(region="elsewhere"),
        BackendTerms(operator="Hugging Face", forgets=False),
    ],
)
async def test_p49_another_operator_or_region_is_another_list_to_agree_to(tmp_path: Path, other: BackendTerms) -> None:
    def member(terms: BackendTerms) -> ConfiguredBackend:
        return ConfiguredBackend(FakeBackend("b", [], tier="cpu_space"), terms)

    async with served(tmp_path) as router:
        fleet = router.services.fleet
        await fleet.replace({"a": OURS, "b": member(BackendTerms(operator="Hugging Face"))})
        await router.http.put("/v1/account/consent", json={"managed_only": False})
        assert (await router.http.get("/v1/account/consent")).json()["managed_only"] is False
        await fleet.replace({"a": OURS, "b": member(other)})
        assert (await router.http.get("/v1/account/consent")).json()["managed_only"] is True

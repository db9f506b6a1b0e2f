"""`router privacy selfcheck` says of every promise what it sees, and ends in failure for one that is broken."""

from __future__ import annotations

import json
import os
import re
import tempfile
import tomllib
from pathlib import Path

import pytest

from ops import privacy_page
from ops.space_requirements import CHECKOUT, key, package_names
from router.core.settings import RouterSettings
from router.privacy import checks, live, machine_checks, network_checks, packages, service_checks
from router.privacy.canary import Hit
from router.privacy.finding import Finding, Installation
from router.privacy.register import promises
from router.privacy.selfcheck import promise_lines
from tests import warm_start
from tests.stack import ram, stack

ALL = [f"P{number:02d}" for number in (*range(1, 68), 73, 74)]


def test_the_register_has_every_promise_and_each_is_kept_by_a_test_a_check_or_the_text() -> None:
    assert list(promises()) == ALL
    assert privacy_page.mismatches() == []
    assert {p.check for p in promises().values() if p.check} == set(checks.CHECKS)
    assert all(p.check for p in promises().values() if p.kind == "P")


def test_a_promise_without_a_test_and_a_test_without_a_promise_are_both_found(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text("def test_p01_p99_some() -> None: ...\n")
    wrong = privacy_page.mismatches(tmp_path)
    assert "P99 is in a test's name and not in the register." in wrong
    assert "P02 has neither a test nor a reason for having none." not in wrong, "it names a test, though"
    assert any(text.startswith("P02: tests/") and text.endswith("does not exist.") for text in wrong)
    assert "P13 has neither a test nor a reason for having none." in wrong
    assert not [text for text in wrong if text.startswith("P01 has")]


LOCKS = {"run": ("router", "worker"), "router": ("router",)}


@pytest.mark.parametrize("name", LOCKS)
def test_p45_what_runs_in_service_is_held_by_checksums_and_nothing_of_it_is_missing(name: str) -> None:
    lock = (CHECKOUT / "locks" / f"{name}.txt").read_text()
    constraints = (CHECKOUT / "constraints.txt").read_text()
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", constraints, re.MULTILINE))
    assert packages.unlocked(lock, pinned) == []
    held = {key(found) for found in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = [wanted for extra in LOCKS[name] for wanted in project["optional-dependencies"][extra]]
    assert {key(wanted) for wanted in package_names([*project["dependencies"], *extras], project)} <= held


def test_p45_a_dependency_without_a_checksum_or_in_another_version_is_noticed() -> None:
    held = " \\\n    --hash=sha256:00\n"
    lock = f"# head\na==1{held}b-c==2 ; x{held}d==3\ne>=1{held}"
    assert packages.unlocked(lock, {"a": "1", "B_c": "2.1", "d": "3", "e": "1"}) == ["b-c", "d", "e>=1"]


def test_p45_a_package_that_could_not_be_looked_up_is_none_without_holes() -> None:
    clean, holed = {"name": "a", "vulns": []}, {"name": "b", "vulns": [{"id": "X-1"}]}
    skipped, ours = ({"name": name, "skip_reason": "not found"} for name in ("c", "mastering-router"))
    judged_as = [
        packages.audit_finding(audited, "w", "c").holds
        for audited in ([clean, ours], [clean, skipped], [holed, skipped])
    ]
    assert judged_as == [True, None, False]


def _status(findings: dict[str, list[Finding]], result: live.CanaryResult | None = None) -> dict[str, str]:
    return {line.id: line.status for line in promise_lines(findings, result or live.CanaryResult())}


def test_every_promise_gets_a_line_and_what_nobody_looked_at_is_not_called_ok() -> None:
    found = _status({})
    assert list(found) == ALL
    assert {found[name] for name in ALL if promises()[name].kind == "L"} == {"text"}
    assert found["P16"] == "built in"
    assert found["P22"] == "ok", "the live canary looked"


def test_one_bad_look_breaks_a_promise_and_one_that_could_not_be_had_leaves_it_open() -> None:
    good, bad, unknown = Finding("a", True), Finding("b", False, "mend it"), Finding("c", None, "ask")
    assert _status({"headers": [good, unknown, bad]})["P43"] == "broken"
    assert _status({"headers": [good, unknown]})["P43"] == "look"
    assert _status({"headers": [good]})["P43"] == "ok"


def test_a_canary_that_is_found_breaks_its_promises_and_one_not_sent_says_why() -> None:
    assert _status({}, live.CanaryResult((Hit("name", "raw", "the log"),)))["P22"] == "broken"
    assert _status({}, live.CanaryResult(why_not="no worker"))["P22"] == "look"


def run(*options: str, **environment: str) -> tuple[int, dict[str, dict[str, str]]]:
    env = {**os.environ, **{f"ROUTER_{name.upper()}": value for name, value in environment.items()}}
    ended = warm_start.run("router", ["privacy", "selfcheck", "--json", *options], env)
    assert ended.stderr == ""
    return ended.returncode, {line["id"]: line for line in json.loads(ended.stdout)["promises"]}


@pytest.mark.timeout(240)
def test_a_running_router_keeps_what_can_be_seen_of_it_and_an_open_file_is_noticed(tmp_path: Path) -> None:
    with stack(tmp_path, settings={"log_dir": tmp_path / "log"}) as running:
        settings = {
            "ram_dir": str(running.ram_dir), "spool_dir": str(running.spool_dir), "log_dir": str(tmp_path / "log"),
            "state_dir": str(tmp_path / "state"), "port": running.url.rpartition(":")[2],
            "workers": json.dumps([running.workers[0].url]),
        }  # fmt: skip
        code, kept = run("--no-canary", "--url", running.url, **settings)
        seen = {name: kept[name]["status"] for name in ("P20", "P26", "P31", "P36", "P42", "P43", "P44", "P49", "P58")}
        assert set(seen.values()) <= {"ok", "look"}, kept
        assert [name for name in ("P20", "P36", "P42", "P43", "P44", "P49") if seen[name] != "ok"] == []
        assert (code == 0) == ("broken" not in {line["status"] for line in kept.values()})
        (tmp_path / "state" / "accounts.sqlite").chmod(0o644)
        code, broken = run("--no-canary", "--url", running.url, **settings)
    assert code == 1
    assert broken["P20"]["status"] == "broken"
    assert "chmod" in broken["P20"]["cure"]


@pytest.mark.timeout(240)
def test_the_live_canary_sends_a_song_through_a_router_of_its_own_and_finds_nothing() -> None:
    result = live.send_canaries()
    assert result == live.CanaryResult()


def test_a_line_in_the_log_that_is_not_on_the_list_is_noticed(tmp_path: Path) -> None:
    where = Installation(RouterSettings(log_dir=tmp_path), None)
    (tmp_path / "router-2026-01-01.jsonl").write_text('{"minute": "2026-01-01T00:00Z", "event": "stopped"}\n')
    assert [finding.holds for finding in service_checks.recent_log(where)] == [True, True]
    (tmp_path / "router-2026-01-02.jsonl").write_text('{"event": "stopped", "address": "127.0.0.77"}\n')
    assert [finding.holds for finding in service_checks.recent_log(where)] == [True, False]


def test_a_port_that_is_open_to_the_network_is_noticed() -> None:
    import socket

    with socket.create_server(("0.0.0.0", 0)) as everywhere:  # noqa: S104 — that is what is to be noticed
        port = int(everywhere.getsockname()[1])
        found = list(network_checks.sockets(Installation(RouterSettings(port=port), None)))
    assert found[0].holds is False
    assert str(port) in found[0].cure
    with socket.create_server(("127.0.0.1", 0)) as here:
        settings = RouterSettings(port=int(here.getsockname()[1]))
        assert next(iter(network_checks.sockets(Installation(settings, None)))).holds is True


def test_a_folder_that_is_no_ram_is_noticed(tmp_path: Path) -> None:
    assert ram() is not None
    with tempfile.TemporaryDirectory(dir=ram(), prefix="mastering-test-") as good:
        first = next(iter(machine_checks.storage(Installation(RouterSettings(ram_dir=Path(good)), None))))
        assert first.what == "keys and job records lie in RAM"
    assert (
        next(iter(machine_checks.storage(Installation(RouterSettings(ram_dir=Path("/proc/self")), None)))).holds
        is False
    )


def test_without_a_contact_a_public_router_breaks_its_promise_and_a_private_one_is_told() -> None:
    private, public = RouterSettings(), RouterSettings(public_url="https://master.example")
    assert [one.holds for one in service_checks.contact(Installation(private, None))] == [None]
    assert [one.holds for one in service_checks.contact(Installation(public, None))] == [False]
    told = RouterSettings(public_url="https://master.example", contact="mailto:us@master.example")
    assert [one.holds for one in service_checks.contact(Installation(told, None))] == [True]

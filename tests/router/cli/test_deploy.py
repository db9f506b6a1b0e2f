"""Deploying a Space: exactly the files it needs, secrets by name, and every refusal of the Hub in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mastering_space import upload
from router.cli.deploy import CHECKOUT, DeployOptions, space_files
from tests import warm_start
from tests.fake_hub import TOKEN, FakeHub, FakeSpace, fake_hub
from tests.rough_space import rough_space
from tests.stack import free_port, ram

CATALOGUE = '[[backend]]\nname = "zero"\ntier = "gpu_space"\nspace = "owner/zero"\n'


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as hub:
        yield hub


@pytest.fixture
def tiers(tmp_path: Path) -> Path:
    path = tmp_path / "tiers.toml"
    path.write_text(CATALOGUE)
    return path


def run(hub: FakeHub, *arguments: str, token: str | None = TOKEN, **environment: str) -> tuple[int, str]:
    """Exit code and all that was printed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "ROUTER_"))}
    told = {"HF_ENDPOINT": hub.url, "HF_HOME": "/nonexistent", **({"HF_TOKEN": token} if token else {}), **environment}
    done = warm_start.run("router", ["deploy", "space", *arguments], {**clean, **told})
    return done.returncode, done.stdout + done.stderr


def test_a_dry_run_says_every_step_and_file_and_asks_nobody(hub: FakeHub) -> None:
    code, said = run(hub, "cpu", "--repo", "owner/cpu", "--dry-run", token=None)
    assert code == 0
    assert "would create owner/cpu as a private gradio Space" in said
    assert " app.py" in said
    assert " mastering/engine/pipeline.py" in said
    assert hub.requests == []


def test_a_space_is_created_and_gets_its_files_and_nothing_else(hub: FakeHub) -> None:
    code, said = run(hub, "cpu", "--repo", "owner/cpu", "--secret", "KEY", "--variable", "A=b", KEY="the-value")
    assert (code, said.count("\n")) == (0, 6), said
    space = hub.spaces["owner/cpu"]
    expected = space_files(DeployOptions("cpu", "owner/cpu"))
    assert {path: source.read_bytes() for path, source in expected.items()} == {
        path: content for path, content in space.files.items() if path != ".gitattributes"
    }
    assert (space.private, space.secrets, space.variables) == (True, {"KEY": "the-value"}, {"A": "b"})
    assert "the-value" not in said
    assert TOKEN not in said


def test_a_space_that_is_there_is_brought_up_to_date(hub: FakeHub) -> None:
    hub.spaces["owner/cpu"] = FakeSpace(files={"stale.py": b"old", "app.py": b"old"}, private=True)
    code, said = run(hub, "cpu", "--repo", "owner/cpu", "--public", "--sleep-s", "3600", "--hardware", "t4-small")
    assert code == 0, said
    space = hub.spaces["owner/cpu"]
    assert "stale.py" not in space.files
    assert space.files["app.py"] == (CHECKOUT / "spaces" / "cpu" / "app.py").read_bytes()
    assert (space.private, space.sleep_s, space.hardware) == (False, 3600, "t4-small")


def test_no_file_outside_its_packages_goes_up(tiers: Path) -> None:
    for wanted in (DeployOptions("cpu", "o/n"), DeployOptions("router", "o/n", catalogue=tiers)):
        names = set(space_files(wanted))
        assert {name.split("/")[0] for name in names if "/" in name} <= {
            "locks",
            "mastering",
            "mastering_space",
            "router",
        }
        assert not [name for name in names if "__pycache__" in name or name.startswith(("tests", ".", "ops"))]


def test_all_that_is_kept_in_the_checkout_goes_up() -> None:
    kept = subprocess.run(["git", "ls-files", "mastering", "spaces/cpu"], cwd=CHECKOUT, capture_output=True, check=True)
    names = {name.removeprefix("spaces/cpu/") for name in kept.stdout.decode().split()}
    assert {
        name for name in space_files(DeployOptions("cpu", "o/n")) if not name.startswith("mastering_space/")
    } == names


def test_what_somebody_left_lying_there_does_not(tmp_path: Path) -> None:
    for name in ("part.py", ".env", ".hidden.py", "key.pem", "song.wav", "part.py~", ".git/part.py", "a/b/page.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert {path.name for path in upload.program_files(tmp_path)} == {"part.py", "page.html"}


@pytest.mark.parametrize(
    ("arguments", "token", "failing", "code", "says"),
    [
        (("cpu", "--repo", "owner/cpu"), None, None, 1, "a Hugging Face token that may write is needed"),
        (("cpu", "--repo", "owner/cpu"), "hf_wrong", None, 1, "the Hub does not accept the token"),
        (("cpu", "--repo", "owner/cpu"), TOKEN, 403, 1, "the token may not do this"),
        (("cpu", "--repo", "owner/cpu"), TOKEN, 402, 1, "the Hub wants a paid plan for this"),
        (("cpu", "--repo", "owner/cpu"), TOKEN, 500, 1, "the Hub answered with status 500"),
        (("tape", "--repo", "owner/cpu"), TOKEN, None, 2, "there is no Space 'tape'"),
        (("router", "--repo", "owner/r"), TOKEN, None, 2, "--catalogue"),
        (("cpu", "--repo", "owner/cpu", "--secret", "NOWHERE"), TOKEN, None, 2, "--secret NOWHERE"),
        (("cpu", "--repo", "owner/cpu", "--variable", "A"), TOKEN, None, 2, "NAME=VALUE"),
    ],
)
def test_what_goes_wrong_is_one_line(
    arguments: tuple[str, ...], token: str | None, failing: int | None, code: int, says: str, hub: FakeHub
) -> None:
    hub.failing = failing
    found, said = run(hub, *arguments, token=token)
    complaints = [line for line in said.splitlines() if line.startswith("router: ")]
    assert (found, len(complaints)) == (code, 1), said
    assert says in complaints[0]
    assert "Traceback" not in said


def test_a_hub_that_is_not_there_is_one_line(hub: FakeHub) -> None:
    code, said = run(hub, "cpu", "--repo", "owner/cpu", HF_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert (code, "the Hub can't be reached" in said, "Traceback" in said) == (1, True, False)


def dockerfile() -> dict[str, str]:
    """The settings that the router's image sets."""
    text = (CHECKOUT / "spaces" / "router" / "Dockerfile").read_text().replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if line.startswith("ENV ")]
    found = re.findall(r"(ROUTER_\w+)=('[^']*'|\S+)", line)
    return {name: value.strip("'") for name, value in found}


def test_the_routers_space_runs_from_what_is_uploaded_alone(hub: FakeHub, tiers: Path, tmp_path: Path) -> None:
    code, said = run(hub, "router", "--repo", "owner/router", "--catalogue", str(tiers))
    assert code == 0, said
    assert hub.spaces["owner/router"].sdk == "docker"
    app = tmp_path / "app"
    for path, content in hub.spaces["owner/router"].files.items():
        (app / path).parent.mkdir(parents=True, exist_ok=True)
        (app / path).write_bytes(content)
    settings = dockerfile()
    assert (settings["ROUTER_PORT"], settings["ROUTER_PROFILE"]) == ("7860", "space")
    port = free_port()
    in_ram = Path(ram() or tmp_path) / f"mastering-test-{port}"
    own = {"PORT": str(port), "RAM_DIR": str(in_ram), "SPOOL_DIR": str(tmp_path / "spool"), "HOST": "127.0.0.1"}
    own |= {"STATE_DIR": str(tmp_path / "state"), "CATALOGUE": str(app / "catalogue.toml")}
    own |= {"PUBLIC_URL": "https://owner-router.hf.space", "OIDC_CLIENT_ID": "c", "OIDC_CLIENT_SECRET": "s"}
    environment = {**settings, **{f"ROUTER_{name}": value for name, value in own.items()}, "HF_ENDPOINT": hub.url}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ROUTER_", "PYTHONPATH"))}
    with (tmp_path / "said.txt").open("wb") as sink:
        router = subprocess.Popen(
            (sys.executable, "-m", "router", "serve"), cwd=app, env={**clean, **environment}, stdout=sink, stderr=sink
        )
    try:
        for _ in range(600):
            try:
                answer = httpx.get(
                    f"http://127.0.0.1:{port}/v1/options", headers={"host": "owner-router.hf.space"}, trust_env=False
                )
                break
            except httpx.HTTPError:
                assert router.poll() is None, (tmp_path / "said.txt").read_text()
                time.sleep(0.05)
        assert answer.status_code == 200, answer.text
        assert "huggingface.co" in answer.headers["content-security-policy"]
    finally:
        router.terminate()
        router.wait()
        subprocess.run(("rm", "-r", str(in_ram), str(in_ram.parent / f".{in_ram.name}.lock")), check=False)


def test_all_that_the_image_copies_is_uploaded(tiers: Path) -> None:
    text = (CHECKOUT / "spaces" / "router" / "Dockerfile").read_text()
    copied = [line.split()[2:-1] for line in text.splitlines() if line.startswith("COPY ")]
    names = set(space_files(DeployOptions("router", "o/n", catalogue=tiers)))
    assert copied
    for name in (name for names_of_line in copied for name in names_of_line):
        assert name in names or any(file.startswith(f"{name}/") for file in names), name


def test_the_router_image_keeps_to_what_a_docker_space_asks() -> None:
    folder = CHECKOUT / "spaces" / "router"
    image, card = (folder / "Dockerfile").read_text(), (folder / "README.md").read_text()
    assert "--uid 1000" in image
    assert "USER 1000" in image
    assert "--mount=type=secret" not in image
    assert not re.search(r"^ARG ", image, re.MULTILINE)
    front = card.split("---")[1]
    assert {"sdk: docker", "app_port: 7860"} <= {line.strip() for line in front.splitlines()}
    assert "`managed only` is not offered here" in card


def test_smoke_checks_a_deployed_space_with_a_token_and_says_so_without_one(hub: FakeHub, tmp_path: Path) -> None:
    def smoke(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "ROUTER_"))}
        return warm_start.run("ops.smoke_hf", arguments, {**clean, "HF_ENDPOINT": hub.url, **environment})

    without = smoke("x.toml")
    assert (without.returncode, without.stderr.count("\n")) == (2, 1)
    assert "set HF_TOKEN" in without.stderr
    path = tmp_path / "tiers.toml"
    path.write_text(CATALOGUE)
    with rough_space() as space:
        hub.spaces["owner/zero"] = FakeSpace(host=space.url)
        good = smoke(str(path), HF_TOKEN=TOKEN)
        assert (good.returncode, "ok    zero: a master of" in good.stdout) == (0, True), good.stdout + good.stderr
        assert space.held() == []
        space.behave(master="title", title="ZeroGPU quota exceeded")
        bad = smoke(str(path), HF_TOKEN=TOKEN)
    assert (bad.returncode, bad.stdout.splitlines()[-1]) == (1, "FAIL  zero: quota: ZeroGPU quota exceeded")

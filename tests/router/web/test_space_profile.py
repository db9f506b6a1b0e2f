"""Where the router itself runs as a Hugging Face Space: what can't be promised there is not offered."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.app.asgi import make_app
from router.core.command_error import CommandError
from router.core.settings import RouterSettings
from tests.openid import openid_provider, settings_of
from tests.served import served


async def test_our_own_servers_alone_are_not_offered_and_the_reason_is_said(tmp_path: Path) -> None:
    async with served(tmp_path, profile="space") as router:
        said = (await router.http.get("/v1/options")).json()["account"]
        assert said["offered"] is False
        assert "passes through Hugging Face" in said["reason"]
        refused = [
            await router.http.post("/v1/jobs", json={"managed_only": True}),
            await router.http.put("/v1/account/consent", json={"managed_only": True}),
        ]
        for answer in refused:
            assert (answer.status_code, answer.json()["code"]) == (422, "bad_settings")
            assert "passes through Hugging Face" in answer.json()["detail"]
        assert (await router.http.post("/v1/jobs", json={"managed_only": False})).status_code == 201


@pytest.mark.parametrize("place", ["iframe", "frame", "embed", "object"])
async def test_nobody_is_sent_to_the_provider_from_within_a_frame(tmp_path: Path, place: str) -> None:
    with openid_provider() as provider:
        async with served(tmp_path, profile="space", **settings_of(provider)) as router:
            answer = await router.http.get("/sign-in", headers={"sec-fetch-dest": place})
            assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
            assert "set-cookie" not in answer.headers
            assert 'href="/" target="_blank" rel="noopener"' in answer.text
            assert provider.asked == []


async def test_a_tab_signs_in_there_with_the_same_cookies_as_everywhere(tmp_path: Path) -> None:
    with openid_provider() as provider:
        async with served(tmp_path, profile="space", **settings_of(provider)) as router:
            begun = await router.http.get("/sign-in", headers={"sec-fetch-dest": "document"})
            back = (await router.http.get(begun.headers["location"])).headers["location"]
            ended = await router.http.get(back)
            assert (await router.http.get("/v1/account")).status_code == 200
    told = [*begun.headers.get_list("set-cookie"), *ended.headers.get_list("set-cookie")]
    assert len(told) == 3, "the sign-in's, the session's, and the end of the sign-in's"
    for line in told:
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(line.split("; "))
        assert "Partitioned" not in line


async def test_elsewhere_they_are_offered(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        assert (await router.http.get("/v1/options")).json()["account"]["offered"] is True
        job = await router.http.post("/v1/jobs", json={"managed_only": True})
        assert job.json()["managed_only"] is True


def test_a_public_address_without_sign_in_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="Without sign-in"):
        make_app(RouterSettings(state_dir=tmp_path, public_url="https://master.example"))

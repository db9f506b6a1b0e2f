"""What a Space's page offers is what the Space can do."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from mastering_space.page import create_page
from mastering_space.settings import SpaceSettings


@pytest.mark.parametrize(("paces", "is_offered"), [(["quick", "fit"], True), (["quick"], False)])
def test_a_fitted_master_is_offered_only_where_it_can_be_made(paces: list[str], is_offered: bool) -> None:
    page = TestClient(create_page("cpu", SpaceSettings(), paces)).get("/").text
    assert ('value="fit"' in page) == is_offered
    assert 'value="quick"' in page

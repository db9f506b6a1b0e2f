"""The catalogue: a file is read, or refused with the line of its error; a faulty file never replaces a good one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from router.core.command_error import CommandError
from router.core.settings import RouterSettings
from router.tiers.connect import connect
from router.tiers.fleet.catalogue import CatalogueEntry, parse_catalogue, read_catalogue
from router.tiers.fleet.member import BackendTerms

GOOD = """\
# Ours.
[[backend]]
name = "gpu-1"
tier = "managed"
url = "https://gpu-1.example"
region = "eu-central"
cost_per_hour = 2.5

[[backend]]
name = "zero"
tier = "gpu_space"
space = "owner/name"
max_duration_s = 600
max_bytes = 100000000
quota_s = 1500
operator = "Hugging Face"
"""


def test_a_good_catalogue_gives_its_backends_in_order_with_their_terms() -> None:
    worker, space = parse_catalogue(GOOD)
    assert (worker.name, worker.effective_protocol, worker.url) == ("gpu-1", "worker", "https://gpu-1.example")
    assert worker.terms == BackendTerms(region="eu-central", cost_per_hour=2.5)
    assert (space.name, space.effective_protocol, space.space) == ("zero", "space", "owner/name")
    assert space.terms == BackendTerms(
        max_bytes=100_000_000, max_duration_s=600, quota_s=1500, region="here", operator="Hugging Face"
    )


def test_an_empty_catalogue_is_a_catalogue() -> None:
    assert parse_catalogue("") == ()


def test_a_worker_may_stand_in_any_tier() -> None:
    (entry,) = parse_catalogue('[[backend]]\nname="a"\ntier="cpu_space"\nurl="http://127.0.0.1:9"\nprotocol="worker"\n')
    assert entry.effective_protocol == "worker"


@pytest.mark.parametrize(
    ("before", "after", "line", "says"),
    [
        ('tier = "managed"', "tier = managed", "line 4", "Invalid value"),
        ('tier = "managed"', 'tier = "tape"', "line 4", "tier: Input should be 'managed', 'gpu_space' or 'cpu_space'"),
        ('name = "gpu-1"', "", "line 2", "name: Field required"),
        ('name = "gpu-1"', 'name = "GPU 1"', "line 3", "name: String should match pattern"),
        ('name = "zero"', 'name = "gpu-1"', "line 10", "there is another backend called 'gpu-1'"),
        ('region = "eu-central"', 'regoin = "eu-central"', "line 6", "regoin: Extra inputs are not permitted"),
        ("https://gpu-1.example", "http://gpu-1.example", "line 5", "url: audio travels by https only"),
        ("https://gpu-1.example", "https://gpu-1.example/x", "line 5", "url: write it like https://host:port"),
        ("https://gpu-1.example", "ftp://gpu-1.example", "line 5", "url: write it like https://host:port"),
        ('url = "https://gpu-1.example"', "", "line 2", "give either url or space"),
        ('space = "owner/name"', 'space = "owner"', "line 12", "space: String should match pattern"),
        ('space = "owner/name"', 'space = "o/n"\nprotocol = "worker"', "line 9", "is spoken to by protocol = 'space'"),
        ("max_duration_s = 600", "max_duration_s = 0", "line 13", "max_duration_s: Input should be greater than 0"),
        ("quota_s = 1500", 'quota_s = "much"', "line 15", "quota_s: Input should be a valid number"),
        ("# Ours.", "[defaults]", "line 1", "only [[backend]] tables are known"),
        ("# Ours.", "speed = 1", "line 1", "only [[backend]] tables are known"),
    ],
)
def test_a_mistake_is_named_with_its_line(before: str, after: str, line: str, says: str) -> None:
    assert before in GOOD
    with pytest.raises(CommandError) as caught:
        parse_catalogue(GOOD.replace(before, after, 1), "catalogue.toml")
    assert line in str(caught.value)
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_single_table_where_a_list_belongs_is_named_too() -> None:
    with pytest.raises(CommandError, match=r"line 1: only \[\[backend\]\] tables"):
        parse_catalogue('[backend]\nname = "a"\n')


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_one_line_without_its_folder(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "catalogue.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CommandError) as caught:
        read_catalogue(path)
    assert str(caught.value) == "the catalogue catalogue.toml can't be read."


def test_a_file_is_read_as_its_text(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(GOOD, "utf-8")
    assert read_catalogue(path) == parse_catalogue(GOOD)


def test_every_field_is_described() -> None:
    assert [name for name, field in CatalogueEntry.model_fields.items() if not field.description] == []


def test_a_space_is_shown_the_token_only_where_its_entry_says_so() -> None:
    for more, expected in (("", None), ("token = true\n", "hf_secret")):
        for address in ('space = "owner/name"', 'url = "https://owner-name.hf.space"'):
            for protocol in ("space", "gradio"):
                text = f'[[backend]]\nname = "s"\ntier = "cpu_space"\n{address}\nprotocol = "{protocol}"\n{more}'
                (entry,) = parse_catalogue(text)
                backend: Any = connect(RouterSettings(hf_token=SecretStr("hf_secret")), entry)
                assert backend._address.token == expected


@pytest.mark.parametrize(
    "url", ["https://other.example", "http://127.0.0.1:1", "https://hf.space.example", "https://ahf.space"]
)
def test_the_token_is_for_hugging_face_alone(url: str) -> None:
    text = f'[[backend]]\nname = "s"\ntier = "cpu_space"\nurl = "{url}"\ntoken = true\n'
    with pytest.raises(CommandError, match="Hugging Face alone"):
        parse_catalogue(text)

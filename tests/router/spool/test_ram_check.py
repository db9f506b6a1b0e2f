"""Is the key folder RAM: swapped, small, missing and false folders are told apart, each with its cure."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.spool import ram_check
from tests.stack import ram as ram_folder

NO_SWAP = "Filename\tType\tSize\tUsed\tPriority\n"
SWAP = NO_SWAP + "/dev/sda2 partition 8388604 0 -2\n"


def mounts(folder: Path, kind: str, options: str = "rw") -> str:
    return f"/dev/sda1 / ext4 rw 0 0\ntmpfs {folder} {kind} {options} 0 0\n"


def test_a_tmpfs_without_swap_is_sound(tmp_path: Path) -> None:
    assert ram_check.check(tmp_path, mounts=mounts(tmp_path, "tmpfs"), swaps=NO_SWAP) is None


def test_a_disk_is_refused_and_the_cure_names_a_tmpfs(tmp_path: Path) -> None:
    finding = ram_check.check(tmp_path, mounts=mounts(tmp_path, "ext4"), swaps=NO_SWAP)
    assert finding is not None
    assert "not kept in RAM" in finding.wrong
    assert "ROUTER_RAM_DIR" in finding.cure


def test_a_tmpfs_that_can_be_swapped_is_refused_unless_it_is_mounted_noswap(tmp_path: Path) -> None:
    finding = ram_check.check(tmp_path, mounts=mounts(tmp_path, "tmpfs"), swaps=SWAP)
    assert finding is not None
    assert "swap" in finding.wrong
    assert "noswap" in finding.cure
    assert ram_check.check(tmp_path, mounts=mounts(tmp_path, "tmpfs", "rw,noswap"), swaps=SWAP) is None
    assert ram_check.check(tmp_path, mounts=mounts(tmp_path, "ramfs"), swaps=SWAP) is None, "ramfs is never swapped"


def test_the_innermost_mount_counts(tmp_path: Path) -> None:
    text = mounts(tmp_path.parent, "tmpfs") + f"/dev/sdb1 {tmp_path} ext4 rw 0 0\n"
    finding = ram_check.check(tmp_path, mounts=text, swaps=NO_SWAP)
    assert finding is not None
    assert "not kept in RAM" in finding.wrong


def test_a_mount_over_another_counts(tmp_path: Path) -> None:
    text = mounts(tmp_path, "ext4") + mounts(tmp_path, "tmpfs")
    assert ram_check.check(tmp_path, mounts=text, swaps=NO_SWAP) is None


def test_a_space_in_a_mount_point_is_read_as_the_system_writes_it(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    text = mounts(folder, "tmpfs").replace(" b", "\\040b")
    assert ram_check.check(folder, mounts=text, swaps=NO_SWAP) is None


@pytest.fixture
def small_tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A real tmpfs of 1 MiB, as Docker's /dev/shm can be."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_small_tmpfs_is_refused_with_the_number_needed(small_tmpfs: Path) -> None:
    finding = ram_check.check(small_tmpfs, swaps=NO_SWAP)
    assert finding is not None
    assert finding.wrong == "it has 1 MiB free of the 16 MiB needed"
    assert "--shm-size" in finding.cure


def test_this_machines_shared_memory_is_seen_as_ram() -> None:
    folder = ram_folder()
    assert folder is not None, "these tests need /dev/shm"
    assert ram_check.check(Path(folder), swaps=NO_SWAP) is None

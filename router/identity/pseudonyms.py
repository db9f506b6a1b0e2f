"""Pseudonyms: the only thing by which a person is known here, and the secret that makes them.

A provider's subject id is the same for every service, so a plain hash of it could be confirmed from a leaked list. The
pseudonym is an HMAC under a pepper that lies outside the database. Peppers have versions, newest first; who signs in
under the newest takes along what was kept under an older one (`router.jobs.account_data`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from router.core.command_error import CommandError

FILE = "pepper"
PEPPER_BYTES = 32
_LINE = re.compile(r"([1-9]\d{0,5}):([0-9a-fA-F]{64,128})")
_FORM = "one line or item a version, newest first, each NUMBER:HEX with 32 random bytes or more (openssl rand -hex 32)"


class Peppers(NamedTuple):
    """Version → pepper, newest first."""

    versions: Mapping[int, bytes]

    def __repr__(self) -> str:
        """Without the secrets, wherever it may be shown."""
        return f"Peppers({[*self.versions]})"

    @property
    def newest(self) -> int:
        return next(iter(self.versions))

    @property
    def older(self) -> list[int]:
        """Every version but the newest."""
        return [version for version in self.versions if version != self.newest]

    def pseudonyms(self, issuer: str, subject: str) -> list[str]:
        """What this person is called under each version, newest first: `v2_` and 128 bits."""
        return [f"v{version}_{_mac(pepper, issuer, subject)}" for version, pepper in self.versions.items()]

    def fingerprints(self) -> dict[int, bytes]:
        """Tells one pepper from another and nothing more: kept beside the accounts, to notice a lost one."""
        return {v: hmac.digest(pepper, b"fingerprint", hashlib.sha256)[:8] for v, pepper in self.versions.items()}


def load(folder: Path, setting: str | None) -> Peppers:
    """The peppers of the setting, or of the file in `folder`, which is made at the first start. Raises Complaint."""
    if setting is not None:
        return _parsed(setting.replace(",", "\n"), "ROUTER_PEPPER")
    path = folder / FILE
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path, [f"1:{secrets.token_hex(PEPPER_BYTES)}"])
    if path.stat().st_mode & 0o077:
        raise CommandError(f"others can read {path}. Take their right away: chmod 600 {path}")
    return _parsed(path.read_text(), str(path))


def rotate(folder: Path) -> int:
    """Put a new pepper before the others of the file; its version. Raises Complaint."""
    peppers = load(folder, None)
    version = max(peppers.versions) + 1
    lines = [f"{v}:{pepper.hex()}" for v, pepper in peppers.versions.items()]
    _write(folder / FILE, [f"{version}:{secrets.token_hex(PEPPER_BYTES)}", *lines])
    return version


def retire(folder: Path) -> None:
    """Forget every pepper of the file but the newest. Raises Complaint."""
    peppers = load(folder, None)
    _write(folder / FILE, [f"{peppers.newest}:{peppers.versions[peppers.newest].hex()}"])


def _write(path: Path, lines: list[str]) -> None:
    """Whole or not at all, and never readable by others, whenever a kill comes."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _parsed(text: str, where: str) -> Peppers:
    found = [_LINE.fullmatch(line.strip()) for line in text.splitlines() if line.strip()]
    versions = {int(match[1]): bytes.fromhex(match[2]) for match in found if match and len(match[2]) % 2 == 0}
    if not found or len(versions) != len(found):
        raise CommandError(f"{where} holds no pepper that can be used: {_FORM}.", exit_code=2)
    return Peppers(versions)


def _mac(pepper: bytes, issuer: str, subject: str) -> str:
    digest = hmac.digest(pepper, f"{issuer}\0{subject}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()

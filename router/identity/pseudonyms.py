"""Pseudonyms, by which alone a person is known here, and the secret pepper from which they are made.

A provider's subject id is the same for every service, so a plain hash of it could be confirmed from a leaked list. The
pseudonym is an HMAC under a pepper that lies outside the database. Peppers have versions, newest first; a person who
signs in under the newest keeps what was stored under an older one (`router.jobs.account_data`).
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
_PEPPER_LINE = re.compile(r"([1-9]\d{0,5}):([0-9a-fA-F]{64,128})")
_FORMAT = (
    "one line or item a version, newest first, each NUMBER:HEX with 32 random bytes or more (openssl rand -hex 32)"
)


class Peppers(NamedTuple):
    """Peppers by version, newest first."""

    versions: Mapping[int, bytes]

    def __repr__(self) -> str:
        """Versions alone, so that no log or traceback shows a secret."""
        return f"Peppers({[*self.versions]})"

    @property
    def newest(self) -> int:
        return next(iter(self.versions))

    @property
    def older(self) -> list[int]:
        """Every version but the newest."""
        return [version for version in self.versions if version != self.newest]

    def pseudonyms(self, issuer: str, subject: str) -> list[str]:
        """The person's pseudonym under each version, newest first: `v2_` and 128 bits in base64url."""
        return [f"v{version}_{_mac(pepper, issuer, subject)}" for version, pepper in self.versions.items()]

    def fingerprints(self) -> dict[int, bytes]:
        """64 bits of an HMAC under each version, stored beside the accounts: a lost or replaced pepper is noticed."""
        return {v: hmac.digest(pepper, b"fingerprint", hashlib.sha256)[:8] for v, pepper in self.versions.items()}


def load_peppers(folder: Path, setting: str | None) -> Peppers:
    """The peppers of the setting, or of the file in `folder`, which is made at the first start. Raises CommandError."""
    if setting is not None:
        return _parsed_peppers(setting.replace(",", "\n"), "ROUTER_PEPPER")
    path = folder / FILE
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path, [f"1:{secrets.token_hex(PEPPER_BYTES)}"])
    if path.stat().st_mode & 0o077:
        raise CommandError(f"others can read {path}. Take their right away: chmod 600 {path}")
    return _parsed_peppers(path.read_text(), str(path))


def rotate_pepper(folder: Path) -> int:
    """Write a new pepper before the others of the file; its version. Raises CommandError."""
    peppers = load_peppers(folder, None)
    version = max(peppers.versions) + 1
    lines = [f"{v}:{pepper.hex()}" for v, pepper in peppers.versions.items()]
    _write(folder / FILE, [f"{version}:{secrets.token_hex(PEPPER_BYTES)}", *lines])
    return version


def retire_peppers(folder: Path) -> None:
    """Erase every pepper of the file but the newest. Raises CommandError."""
    peppers = load_peppers(folder, None)
    _write(folder / FILE, [f"{peppers.newest}:{peppers.versions[peppers.newest].hex()}"])


def _write(path: Path, lines: list[str]) -> None:
    """Replace the file atomically, so that a kill at any moment leaves it whole and never readable by others."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _parsed_peppers(text: str, where: str) -> Peppers:
    found = [_PEPPER_LINE.fullmatch(line.strip()) for line in text.splitlines() if line.strip()]
    versions = {int(match[1]): bytes.fromhex(match[2]) for match in found if match and len(match[2]) % 2 == 0}
    if not found or len(versions) != len(found):
        raise CommandError(f"{where} holds no pepper that can be used: {_FORMAT}.", exit_code=2)
    return Peppers(versions)


def _mac(pepper: bytes, issuer: str, subject: str) -> str:
    digest = hmac.digest(pepper, f"{issuer}\0{subject}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()

"""`python -m ops.smoke_hf CATALOGUE`: checks deployed Spaces, by the real Hub and with a real token.

For each Space of the catalogue: its stage by the Hub, its health, then half a minute of synthesised music through it,
and what is left of it there afterwards (nothing). One line each; ends with 1 if any is not as it should be.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from pydantic import SecretStr

from mastering.contract import Facts, OutputFormat
from mastering.contract import Settings as Asked
from ops.demo import demo_wav
from router.cli.deploy import TOKEN_VARIABLES
from router.core.command_error import CommandError
from router.core.settings import RouterSettings
from router.tiers.connect import connect
from router.tiers.fleet.catalogue import CatalogueEntry, read_catalogue
from router.tiers.in_memory import audio_source_of
from router.tiers.policy.faults import TierFault
from router.tiers.port import Backend, Finished, Work

DEADLINE_S = 600.0
_RATE_HZ = 44_100


async def smoke(entries: list[CatalogueEntry], token: str) -> bool:
    """True where every Space made a master."""
    song = demo_wav()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as ram:  # noqa: S108
        key = os.environ.get("ROUTER_SPACE_KEY")
        settings = RouterSettings(
            ram_dir=Path(ram), hf_token=SecretStr(token), space_key=SecretStr(key) if key else None
        )
        return all([await _one(entry, connect(settings, entry), song) for entry in entries])


async def _one(entry: CatalogueEntry, backend: Backend, song: bytes) -> bool:
    where = entry.space or entry.url
    try:
        health = await backend.probe()
        print(f"{'ok  ' if health.up else 'note'}  {entry.name}: {where}: {health.detail}")
        await backend.wake()
        async with asyncio.timeout(DEADLINE_S):
            size_bytes, readings = await _master(backend, song)
    except TierFault as fault:
        print(f"FAIL  {entry.name}: {fault.fault_class}: {fault.detail}")
        return False
    except TimeoutError:
        print(f"FAIL  {entry.name}: nothing within {DEADLINE_S:.0f} s")
        return False
    finally:
        await backend.close()
    print(f"ok    {entry.name}: a master of {size_bytes} bytes{readings}")
    return True


async def _master(backend: Backend, song: bytes) -> tuple[int, str]:
    frames = (len(song) - 44) // 4
    seconds = frames / _RATE_HZ
    facts = Facts(
        container="wav", codec="pcm_16", rate_hz=_RATE_HZ, channels=2, frames=frames, duration_s=seconds, lossy=False
    )
    size_bytes, readings = 0, ""
    async for event in backend.run(
        Work(Asked(outputs=(OutputFormat.WAV24,)), facts, audio_source_of(song), DEADLINE_S)
    ):
        if isinstance(event, bytes):
            size_bytes += len(event)
        elif isinstance(event, Finished) and event.report is not None:
            after = event.report["after"]
            readings = f", {after['integrated_lufs']} LUFS, {after['true_peak_dbtp']} dBTP"
    return size_bytes, readings


def main() -> int:
    token = next((os.environ[name] for name in TOKEN_VARIABLES if os.environ.get(name)), None)
    if token is None:
        print("smoke: a Hugging Face token is needed; set HF_TOKEN.", file=sys.stderr)
        return 2
    if len(sys.argv) != 2:
        print("smoke: name the catalogue of the deployed Spaces: make smoke-hf CATALOGUE=tiers.toml", file=sys.stderr)
        return 2
    try:
        spaces = [entry for entry in read_catalogue(Path(sys.argv[1])) if entry.effective_protocol != "worker"]
    except CommandError as command_error:
        print(f"smoke: {command_error}", file=sys.stderr)
        return command_error.exit_code
    if not spaces:
        print("smoke: no Space is in that catalogue.", file=sys.stderr)
        return 2
    return 0 if asyncio.run(smoke(spaces, token)) else 1


if __name__ == "__main__":
    sys.exit(main())

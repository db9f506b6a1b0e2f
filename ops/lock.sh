#!/bin/sh
# Resolve every extra together in a fresh environment and write the versions down; then, for what runs in service, the
# checksums of every file that the index has of them.
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet 'torch==2.13.0' '.[router,worker,test,bench]'
{
  echo "# Resolved together on $(date -u +%F); made by 'make lock'. torch stays pinned in pyproject.toml (extra gpu)."
  "$tmp/venv/bin/pip" freeze --exclude mastering-router --exclude torch
} > constraints.txt
exec ops/lock_hashes.sh

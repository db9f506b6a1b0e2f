#!/bin/sh
# Resolve every extra together and write the versions down, then the checksums of their files. Nothing is installed but
# uv, which asks the index, by the checksums of locks/uv.txt.
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet --require-hashes --no-deps --requirement locks/uv.txt
{
  echo "# Resolved together on $(date -u +%F); made by 'make lock'. torch stays pinned in pyproject.toml (extra gpu)."
  "$tmp/venv/bin/uv" pip compile pyproject.toml --extra router --extra worker --extra test --extra bench --extra gpu \
    --python-version 3.11 --no-annotate --no-header --quiet
} > "$tmp/all"
# CUDA's libraries belong to one build of torch: locks/torch.txt.
grep -vE '^(torch|triton)==|^(nvidia|cuda)-' "$tmp/all" > constraints.txt
exec python3 -m ops.lock_hashes

#!/bin/sh
# locks/*.txt: the versions of constraints.txt with the checksums of their files, for any platform from Python 3.11 on.
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet uv
lock() { # NAME EXTRA...
  to="locks/$1.txt"
  shift
  echo "# Made by 'make lock' from pyproject.toml ($*) and constraints.txt: pip install --require-hashes -r $to" > "$tmp/lock"
  # setuptools builds the project itself, from the same list; the tests' torch, which is in no list, asks for two more.
  needs='setuptools>=77'
  [ "$to" = locks/test.txt ] && needs="$needs sympy networkx"
  printf '%s\n' $needs | "$tmp/venv/bin/uv" pip compile pyproject.toml - $(printf -- '--extra %s ' "$@") \
    --constraint constraints.txt --generate-hashes --universal --python-version 3.11 --no-annotate --no-header --quiet >> "$tmp/lock"
  mv "$tmp/lock" "$to"
}
mkdir -p locks
lock run router worker
lock router router
lock test router worker test
{
  echo "# Made by 'make lock': what installs the other lists (ops/install_locked.sh)"
  echo uv | "$tmp/venv/bin/uv" pip compile - --generate-hashes --universal --python-version 3.11 --no-annotate --no-header --quiet
} > "$tmp/lock"
mv "$tmp/lock" locks/uv.txt

#!/bin/sh
# README's two commands on a machine where nothing was ever installed: `make fresh-check`, for root on Debian or Ubuntu.
#
# Makes a minimal root by debootstrap from the mirror that this machine is set to, adds the packages that README names
# and nothing else, clones the checkout into it (what is committed) and types what README says: `make run`, a song by
# the curl lines, `make test`. TESTS=tests/browser/test_report.py runs these instead of all. Takes 4 GB in /var/tmp.
#
# Three parts, in this order: outside (makes the folder and removes it), a mount and process namespace (furnishes the
# root), and the root itself after pivot_root. Every mount is made in the namespace and ends with it, and the root has
# device nodes of its own: nothing inside can reach the machine's, nor can the removal go through a mount.
set -eu
export LC_ALL=C.UTF-8

outside() {
  checkout=$(cd "$(dirname "$0")/.." && pwd)
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "make fresh-check wants root on Debian or Ubuntu." >&2
    exit 1
  fi
  if ! command -v debootstrap >/dev/null; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
  fi
  root=$(mktemp -d /var/tmp/fresh-check.XXXXXX)
  chmod 755 "$root" # it becomes /
  trap 'remove' EXIT
  git clone --quiet --bare "$checkout" "$root.git"
  # In the background, so that a signal is heeded at once: unshare and the first process of a namespace ignore most.
  unshare --mount --pid --fork --kill-child --mount-proc "$checkout/ops/fresh_check.sh" furnish "$root" &
  namespace=$!
  trap 'kill -KILL "$namespace"; sleep 1; exit 130' INT TERM HUP
  wait "$namespace"
}

remove() {
  if grep -q " $root" /proc/self/mountinfo; then
    echo "Something is still mounted below $root: left as it is." >&2
  else
    rm -rf --one-file-system "$root" "$root.git" "$root.log"
  fi
}

furnish() {
  root=$1
  . /etc/os-release
  mirror=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $VERSION_CODENAME" | sort -u | head -n 1)
  [ -n "$mirror" ] || { echo "apt-get knows no mirror of $VERSION_CODENAME: apt-get update" >&2; exit 1; }
  begun=$(date +%s)
  debootstrap --variant=minbase "$VERSION_CODENAME" "$root" "$mirror" >"$root.log" 2>&1 ||
    { tail -n 20 "$root.log"; exit 1; }
  echo "fresh-check: a minimal $VERSION_CODENAME took $(($(date +%s) - begun)) s"

  mv "$root.git" "$root/srv/mastering-router.git"
  cp "$0" "$root/srv/fresh_check.sh"
  mount --bind "$root" "$root" # pivot_root wants a mount; the others lie on it
  bring_network_settings
  mount -t proc proc "$root/proc"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
    set -- $node
    mknod -m 666 "$root/dev/$1" c "$2" "$3"
  done
  mkdir "$root/dev/pts" "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
  mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  for number in "0 stdin" "1 stdout" "2 stderr"; do ln -s "/proc/self/fd/${number% *}" "$root/dev/${number#* }"; done
  cd "$root"
  mkdir outside
  pivot_root . outside
  exec chroot . /usr/bin/env -i HOME="$HOME" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    TESTS="${TESTS:-}" sh /srv/fresh_check.sh inside
}

# How this machine reaches its package registries: names, certificates, apt's, pip's and npm's own settings. An index
# that lies on the disk is mounted, read-only.
bring_network_settings() {
  cp /etc/resolv.conf /etc/hosts "$root/etc/"
  apt-config dump | grep -E '^Acquire::(https?|Check-)' >"$root/etc/apt/apt.conf.d/99machine" || true
  export -p >"$root.exports"
  grep -E '^export (PIP|UV|NPM_CONFIG|npm_config|OPENBLAS)_|_(CERT|CERTS|CERT_FILE|BUNDLE|CAINFO|proxy|PROXY)=' \
    "$root.exports" >"$root/srv/environment" || true
  rm "$root.exports"
  pip_says=$(python3 -m pip config list 2>/dev/null || true)
  for file in /etc/pip.conf /etc/xdg/pip/* "$HOME"/.config/pip/* "$HOME/.pip/pip.conf" /etc/npmrc "$HOME/.npmrc" \
    /usr/local/share/ca-certificates/* $( (cat "$root/srv/environment"; echo "$pip_says") | grep -oE "/[^' ]+"); do
    [ ! -f "$file" ] || install -D -m 644 "$file" "$root$file"
  done
  # A file index names its files as ../../files/NAME, so its parent comes with it.
  for folder in $(echo "$pip_says" | grep -oE "file:///[^' ]+" | sed -E 's#^file://(/.*)/[^/]*/?$#\1#') \
    $(echo "$pip_says" | sed -n "s/.*find-links='\(.*\)'/\1/p"); do
    [ -d "$folder" ] && ! mountpoint -q "$root$folder" || continue
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
    mount -o remount,ro,bind "$root$folder"
  done
}

step() { # NAME COMMAND...: what it took, and its output if it failed
  name=$1
  shift
  began=$(date +%s)
  if "$@" >/tmp/step.log 2>&1; then ended=0; else ended=$?; fi
  echo "fresh-check: $name took $(($(date +%s) - began)) s"
  [ "$ended" = 0 ] || { tail -n "${LINES_SHOWN:-60}" /tmp/step.log; echo "fresh-check: $name failed ($ended)"; exit 1; }
}

fail() {
  echo "fresh-check: $1"
  exit 1
}

inside() {
  umount -l /outside
  rmdir /outside
  . /srv/environment
  export DEBIAN_FRONTEND=noninteractive
  # git comes first only because README lies in the clone; it is one of the packages that README names.
  step "apt-get update" apt-get update -qq
  step "git" apt-get install -y -qq --no-install-recommends git
  cd "$HOME"
  step "git clone" git clone -q /srv/mastering-router.git mastering-router
  cd mastering-router
  packages=$(sed -n 's/.*apt-get install \(.*python3-venv.*\)`.*/\1/p' README.md)
  [ -n "$packages" ] || fail "README names no packages"

  step "README's packages but python3-venv" apt-get install -y -qq --no-install-recommends \
    $(echo "$packages" | sed 's/python3-venv//')
  ! make run >/tmp/said 2>&1 || fail "make run went on without python3-venv"
  grep -q 'type: sudo apt-get install python3[.0-9]*-venv' /tmp/said && [ "$(grep -vc '^make' /tmp/said)" = 1 ] ||
    fail "make run does not say in one line what to install: $(cat /tmp/said)"
  ! python3 -m venv .venv >/dev/null || fail "a venv without its package"
  echo "fresh-check: without python3-venv: $(grep -v '^make' /tmp/said)"
  step "python3-venv" apt-get install -y -qq --no-install-recommends python3-venv

  # From here on a half-made .venv lies there, as whoever asked venv itself has it.
  ! curl -s -o /tmp/other 127.0.0.1:8080 || fail "another server listens on port 8080 of this machine"
  make run >/tmp/run.log 2>&1 &
  run=$!
  step "make run, until the page answers" answers
  step "README's song" .venv/bin/mastering demo-song song.wav
  mv song.wav song.ogg # the name in README's curl lines; what it is, the router sees by itself
  sed -n '/^## By curl/,/^## /p' README.md | sed -n '/^```sh/,/^```$/p' | sed '/^```/d' >/tmp/by_curl.sh
  # "After a 409, which says that a minute was not enough, once more."
  sed -i 's/^curl -f \(.*\)/curl -f \1 || curl -f \1/' /tmp/by_curl.sh
  step "a song by README's curl lines" sh -eu /tmp/by_curl.sh
  step "the check of the master" .venv/bin/python -c '
import numpy, soundfile
song, master = soundfile.info("song.ogg"), soundfile.info("master.wav")
assert (master.format, master.subtype) in {("WAV", "PCM_24"), ("WAVEX", "PCM_24")}, master
assert abs(master.duration - song.duration) < 0.05, (song.duration, master.duration)
samples, _ = soundfile.read("master.wav")
assert numpy.isfinite(samples).all() and 0.1 < abs(samples).max() <= 1.0, abs(samples).max()
'
  rm song.ogg master.wav
  kill "$run"
  wait "$run" || true
  step "the stop of make run, all its processes" nobody_runs

  if [ -n "${TESTS:-}" ]; then
    step "make setup-test" make setup-test
    step "$TESTS" .venv/bin/python -m pytest -q $TESTS
  else
    LINES_SHOWN=200 step "make test" make test
  fi
  grep -E '^(=+ )?[0-9]+ passed' /tmp/step.log || fail "no test passed"
  echo "fresh-check: all well"
}

answers() {
  until curl -sf -o /dev/null 127.0.0.1:8080; do
    kill -0 "$run" 2>/dev/null || { cat /tmp/run.log; return 1; }
    sleep 1
  done
}

nobody_runs() { # within 30 s; those still there by their command lines
  for _ in $(seq 30); do
    left=$(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -cE '^(router|mastering)\.|/router$' || true)
    [ "$left" != 0 ] || return 0
    sleep 1
  done
  cat /proc/[0-9]*/cmdline | tr '\0' ' '
  return 1
}

case ${1:-} in
  furnish) furnish "$2" ;;
  inside) inside ;;
  *) outside ;;
esac

#!/bin/sh
# What the tests need beside Python packages: a real browser, ffmpeg as an independent meter, strace as a witness,
# HAProxy to run the shipped proxy configuration.
# Installs them where it may (Debian or Ubuntu, as root); elsewhere says in one line what is missing, and fails.
set -eu
missing=
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
command -v ffmpeg >/dev/null 2>&1 || missing="$missing ffmpeg"
command -v strace >/dev/null 2>&1 || missing="$missing strace"
command -v haproxy >/dev/null 2>&1 || test -x /usr/sbin/haproxy || missing="$missing haproxy"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq
  # shellcheck disable=SC2086 # a list of package names is meant to split
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
  exit 0
fi
echo "The tests need these programs:$missing. Install them (on Debian: sudo apt-get install$missing) and run again." >&2
exit 1

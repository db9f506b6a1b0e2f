#!/bin/sh
# What the tests need beside Python packages: a real browser, ffmpeg as an independent meter, strace as a witness,
# HAProxy to run the shipped proxy configuration, libfaketime to let clocks jump.
# Installs them where it may (Debian or Ubuntu, as root); elsewhere says in one line what is missing, and fails.
set -eu
has() { command -v "$1" >/dev/null 2>&1; }
missing=
# Chromium without a window takes less than half of the processor time; where a system has no such package, the whole.
has chromium-headless-shell || missing="$missing chromium-headless-shell"
has ffmpeg || missing="$missing ffmpeg"
has strace || missing="$missing strace"
has haproxy || test -x /usr/sbin/haproxy || missing="$missing haproxy"
ls /usr/lib/*/faketime/libfaketime.so.1 /usr/lib/faketime/libfaketime.so.1 /usr/lib64/faketime/libfaketime.so.1 \
  2>/dev/null | grep -q . || missing="$missing libfaketime"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && has apt-get; then
  apt-get update -qq
  apt-cache show chromium-headless-shell >/dev/null 2>&1 || missing=$(echo "$missing" | sed s/-headless-shell//)
  # shellcheck disable=SC2086 # a list of package names is meant to split
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
  exit 0
fi
has chromium && missing=$(echo "$missing" | sed 's/ chromium-headless-shell//')
[ -z "$missing" ] && exit 0
echo "The tests need these programs:$missing. Install them (on Debian: sudo apt-get install$missing) and run again." >&2
exit 1

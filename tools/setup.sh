#!/usr/bin/env bash
# Installs what the tests need besides Go: gcc is for the race detector, memcached for the caches' tests, strace for those of the local disk,
# prometheus, nginx and node for interop/. Only root on Debian may install; otherwise all that is missing is named in one line, and nothing
# has run yet.
set -euo pipefail
cd "$(dirname "$0")/.."

PATH="$PATH:/usr/sbin"
missing=
for tool in gcc make git memcached strace prometheus nginx node npm; do
  if ! command -v "$tool" >/dev/null; then
    case "$tool" in
      nginx) missing="$missing nginx-light" ;;
      node) missing="$missing nodejs" ;;
      *) missing="$missing $tool" ;;
    esac
  fi
done
if [ -n "$missing" ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing programs, by Debian's packages:$missing (as root on Debian, make setup installs them)" >&2
    exit 1
  fi
  # shellcheck disable=SC2086 # one word per package
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
fi

#!/usr/bin/env bash
# Installs what the tests need besides Go: gcc for the race detector, memcached for tests of caches,
# strace for tests of the local disk, chromium for the report of larder bench, prometheus, nginx and
# node for interop/. Only root on Debian may install. For other users it lists what is missing, and fails.
set -euo pipefail
cd "$(dirname "$0")/.."

PATH="$PATH:/usr/sbin"
missing=
for tool in gcc make git memcached strace chromium prometheus nginx node npm; do
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
    echo "missing Debian packages:$missing (make setup installs them, as root on Debian)" >&2
    exit 1
  fi
  # shellcheck disable=SC2086 # one word per package
  apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
fi

#!/bin/sh
# Runs one fuzz target for a time, by one worker: fuzz.sh PACKAGE TARGET TIME. Prints its last line, or everything if it failed. Called by `make fuzz`.
#
# Up to Go 1.26 the end of -fuzztime can itself be taken for a failure of the target (go.dev/issue/75804, mended in 1.27): it is reported as
# "context deadline exceeded" and nothing else, without an input. Only that is tried again, twice at most: a target that hangs fails each time.
set -u
pkg=$1 target=$2 time=$3

for try in 1 2 3; do
  # Inputs are made smaller only a little: else that takes most of the time.
  if out=$("${GO:-go}" test "$pkg" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 50x -parallel 1 2>&1); then
    echo "fuzz $pkg $target: $(echo "$out" | grep elapsed: | tail -1)"
    exit 0
  fi
  # What is left of a failure without the progress, the verdicts, and the race: nothing, if it is only that.
  rest=$(echo "$out" | grep -v -e '^fuzz: elapsed:' -e "^--- FAIL: $target " -e '^ *context deadline exceeded$' -e '^FAIL' -e '^exit status 1$')
  if [ -n "$rest" ] || ! echo "$out" | grep -q '^ *context deadline exceeded$'; then
    break
  fi
  echo "fuzz $pkg $target: the end of its time was taken for a failure (go.dev/issue/75804), attempt $try"
done
echo "fuzz $pkg $target"
echo "$out"
exit 255 # xargs starts no other

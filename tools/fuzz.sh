#!/bin/sh
# Runs one fuzz target for a time, with one worker: fuzz.sh PACKAGE TARGET TIME. Prints its last
# line, or all output if it failed. `make fuzz` calls it.
#
# Up to Go 1.26 the end of -fuzztime can be reported as a failure (go.dev/issue/75804, fixed in
# 1.27): "context deadline exceeded" alone, without an input. Only then the target runs again, twice
# at most. A target that hangs fails each time.
set -u
pkg=$1 target=$2 time=$3

for try in 1 2 3; do
  # Limit the minimization of inputs, which would take most of the time.
  if out=$("${GO:-go}" test "$pkg" -run '^$' -fuzz "^$target\$" -fuzztime "$time" \
    -fuzzminimizetime 50x -parallel 1 2>&1); then
    echo "fuzz $pkg $target: $(echo "$out" | grep elapsed: | tail -1)"
    exit 0
  fi
  # The output without the lines of the false failure: empty if there is nothing else.
  rest=$(echo "$out" | grep -v -e '^fuzz: elapsed:' -e "^--- FAIL: $target " \
    -e '^ *context deadline exceeded$' -e '^FAIL' -e '^exit status 1$')
  if [ -n "$rest" ] || ! echo "$out" | grep -q '^ *context deadline exceeded$'; then
    break
  fi
  echo "fuzz $pkg $target: false failure at the end of its time (go.dev/issue/75804), attempt $try"
done
echo "fuzz $pkg $target"
echo "$out"
exit 255 # stops xargs

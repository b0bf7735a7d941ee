#!/usr/bin/env bash
# Runs the kernels' tests on the emulator with AddressSanitizer: what the emulator's own checks do
# not see (local arrays, the emulator itself) is then checked too.
#
#   kernels/sanitize.sh [ARGUMENTS OF cargo test]
set -euo pipefail
cd "$(dirname "$0")/.."
runtime="$("${CXX:-g++}" -print-file-name=libasan.so)"
[ -e "$runtime" ] || {
  echo "SKIPPED kernels under AddressSanitizer: no libasan beside the C++ compiler" >&2
  [ -z "${CI:-}" ] || exit 1
  exit 0
}
triple="$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')"
# The tests alone, not cargo, are run with the sanitizer's runtime, which has to come first. Rust's
# own leaks at exit are not this suite's.
export "CARGO_TARGET_${triple}_RUNNER=env LD_PRELOAD=$runtime ASAN_OPTIONS=detect_leaks=0"
export HOTSPARE_SANITIZE=address
cargo test -p hotspare-backend-cuda --lib --no-run "$@"
start="$(date +%s)"
cargo test -p hotspare-backend-cuda --lib "$@" -- --skip fatbin_test
echo "every kernel under AddressSanitizer: $(($(date +%s) - start)) s"

#!/usr/bin/env bash
# Compiles all kernels to one fatbin: machine code for every supported card, and PTX for later ones.
#
#   kernels/build.sh [FOLDER]        (default: target/kernels)
#
# Leaves kernels.fatbin and ptxas.log (registers, spills and shared memory of each kernel on each
# card) in FOLDER; does nothing where the fatbin is newer than the sources. The compiler is the one
# that kernels/toolkit.sh finds or installs.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
folder="${1:-$here/../target/kernels}"
mkdir -p "$folder"
fatbin="$folder/kernels.fatbin"

if [ -f "$fatbin" ] && [ -z "$(find "$here" -newer "$fatbin" -type f -name '*.cu*' -print -quit)" ] &&
  [ ! "$here/build.sh" -nt "$fatbin" ]; then
  echo "$fatbin"
  exit 0
fi
nvcc="$("$here/toolkit.sh")"
targets=()
for sm in 80 86 89 90 120; do
  targets+=(-gencode "arch=compute_$sm,code=sm_$sm")
done
targets+=(-gencode arch=compute_80,code=compute_80)
# One rounding an operation, as on the host; not compressed, so that tests can read the PTX.
"$nvcc" -std=c++17 -O3 -fmad=false --no-compress --threads 0 -Xptxas -v "${targets[@]}" -fatbin \
  "$here/all.cu" -o "$fatbin.part" 2>"$folder/ptxas.log" || {
  grep -v '^ptxas info' "$folder/ptxas.log" >&2
  exit 1
}
mv "$fatbin.part" "$fatbin"
echo "$fatbin"

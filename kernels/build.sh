#!/usr/bin/env bash
# Compiles all kernels to one fatbin: machine code for every supported card, and PTX for later ones.
#
#   kernels/build.sh [FOLDER]        (default: target/kernels)
#
# Leaves in FOLDER kernels.fatbin (as it is: tests read its PTX), kernels.packed.fatbin (the same,
# compressed as the driver takes it: what the binary holds), ptxas.log (registers, spills and shared
# memory of each kernel on each card), kernels.hash (what the sources and the compiler hash to) and
# seconds (what the compiler took). Does nothing where kernels.hash says that they are made of these
# sources already, whatever the files' times. Prints the path of kernels.fatbin. The compiler is the
# one that kernels/toolkit.sh finds or installs.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
folder="${1:-$here/../target/kernels}"
mkdir -p "$folder"
folder="$(cd "$folder" && pwd)"
fatbin="$folder/kernels.fatbin"
packed="$folder/kernels.packed.fatbin"

# One at a time: tests and build scripts come here side by side.
if command -v flock >/dev/null; then
  exec 9>"$folder/lock"
  flock 9
fi

# nvcc obeys these, and they are not among what is hashed.
unset NVCC_APPEND_FLAGS NVCC_PREPEND_FLAGS
# The sources, the scripts, and the compiler to the last digit: it enters the bits of results.
hash_sources() {
  (
    cd "$here"
    sha256sum -- *.cu *.cuh build.sh toolkit.sh
    ./toolkit.sh --version
  ) | sha256sum | cut -c1-16
}
hash="$(LC_ALL=C hash_sources)"
if [ -f "$fatbin" ] && [ -f "$packed" ] && [ "$(cat "$folder/kernels.hash" 2>/dev/null)" = "$hash" ]; then
  echo "$fatbin"
  exit 0
fi

nvcc="$("$here/toolkit.sh")"
targets=()
images=("--image3=kind=ptx,sm=80,file=$folder/keep/all.compute_80.ptx")
for sm in 80 86 89 90 120; do
  targets+=(-gencode "arch=compute_$sm,code=sm_$sm")
done
targets+=(-gencode arch=compute_80,code=compute_80)
rm -rf "$folder/keep" "$folder/kernels.hash"
mkdir "$folder/keep"
start="$(date +%s)"
# One rounding an operation, as on the host; not compressed, so that tests can read the PTX.
"$nvcc" -std=c++17 -O3 -fmad=false --no-compress --threads 0 --keep --keep-dir "$folder/keep" \
  -Xptxas -v "${targets[@]}" -fatbin "$here/all.cu" -o "$fatbin.part" 2>"$folder/ptxas.log" || {
  grep -v '^ptxas info' "$folder/ptxas.log" >&2
  exit 1
}
# What it was made of, once more, in the compression that the driver undoes.
for sm in 80 86 89 90 120; do
  # nvcc names the one whose PTX it keeps in another way.
  for cubin in "$folder/keep/all.compute_$sm.cubin" "$folder/keep/all.compute_$sm.sm_$sm.cubin"; do
    if [ -f "$cubin" ]; then images+=("--image3=kind=elf,sm=$sm,file=$cubin"); fi
  done
done
"$(dirname "$nvcc")/fatbinary" -64 --create="$packed.part" --compress-all --compress-mode=size \
  --cicc-cmdline="-ftz=0 -prec_div=1 -prec_sqrt=1 -fmad=0 " --cmdline=" --fmad false " "${images[@]}"
mv "$packed.part" "$packed"
mv "$fatbin.part" "$fatbin"
rm -rf "$folder/keep"
echo "$(($(date +%s) - start))" >"$folder/seconds"
echo "$hash" >"$folder/kernels.hash"
echo "$fatbin"

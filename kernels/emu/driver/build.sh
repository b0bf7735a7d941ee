#!/usr/bin/env bash
# Compiles the kernels with the host's C++ compiler into a CUDA driver that runs them on the emulator,
# for tests of what talks to a card on machines without one.
#
#   kernels/emu/driver/build.sh [FOLDER]      (default: target/kernels/emulated)
#   LD_LIBRARY_PATH=$(kernels/emu/driver/build.sh) hotspare serve spark-mini --device cuda:0
#
# Leaves libcuda.so.1 in FOLDER, and libcublasLt.so.13 in FOLDER/products, and prints FOLDER. Does nothing where it is made of these sources
# already. EMULATED_CUDA (state.cpp) says what card it is and what goes wrong with it.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
kernels="$here/../.."
folder="${1:-$kernels/../target/kernels/emulated}"
mkdir -p "$folder"
folder="$(cd "$folder" && pwd)"
cxx="${CXX:-g++}"

# One at a time: tests come here side by side.
if command -v flock >/dev/null; then
  exec 9>"$folder/lock"
  flock 9
fi
hash_sources() {
  (
    cd "$kernels"
    sha256sum -- *.cu *.cuh emu/*.h emu/*.cpp emu/driver/*
    "$cxx" --version | head -1
  ) | sha256sum | cut -c1-16
}
hash="$(LC_ALL=C hash_sources)"
if [ -f "$folder/products/libcublasLt.so.13" ] && [ "$(cat "$folder/hash" 2>/dev/null)" = "$hash" ]; then
  echo "$folder"
  exit 0
fi
objects="$folder/objects"
rm -rf "$objects" "$folder/hash"
mkdir "$objects"
sources=()
cd "$kernels"
for source in *.cu emu/*.cpp emu/driver/*.cpp; do
  # all.cu is the others once more, for nvcc.
  [ "$source" = all.cu ] || sources+=("$source")
done
# One rounding an operation, as on the card.
printf '%s\0' "${sources[@]}" | xargs -0 -P "${HOTSPARE_BUILD_JOBS:-2}" -I{} sh -c \
  '"$1" -std=c++17 -O2 -fPIC -fvisibility=hidden -ffp-contract=off -Wall -Wextra -Wno-unknown-pragmas \
    -x c++ -c "$2" -o "$3/$(echo "$2" | tr / _).o"' sh "$cxx" {} "$objects" >&2
mkdir -p "$folder/products"
products="$objects/emu_driver_cublaslt.cpp.o"
mv "$products" "$folder/products/"
"$cxx" -shared -Wl,-soname,libcuda.so.1 "$objects"/*.o -o "$folder/libcuda.so.1"
# It queues on the driver's streams, in the driver's memory.
"$cxx" -shared -Wl,-soname,libcublasLt.so.13 "$folder/products/emu_driver_cublaslt.cpp.o" \
  "$folder/libcuda.so.1" -o "$folder/products/libcublasLt.so.13"
rm "$folder/products/emu_driver_cublaslt.cpp.o"
rm -r "$objects"
echo "$hash" >"$folder/hash"
echo "$folder"

#!/usr/bin/env bash
# Installs NVIDIA's CUDA compiler from its wheels where no toolkit is found, and prints nvcc's path.
#
#   kernels/toolkit.sh [FOLDER]      (default: target/cuda-toolkit beside this checkout's sources)
#   kernels/toolkit.sh --version     which compiler that would be, to the last digit; installs nothing
#
# Looks at CUDA_HOME, then at PATH, then at what an earlier run installed; only then does it need
# the network and Python with pip. The folder is never added to a system path; remove it to undo.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
folder="${1:-$root/target/cuda-toolkit}"

# Whether it is of CUDA 13: an older one does not know every card, and the next one drops some.
is_usable() {
  [ -x "$1" ] || return 1
  "$1" --version 2>/dev/null | grep -q 'release 13\.' && return 0
  echo "$1 is not of CUDA 13: not used" >&2
  return 1
}
wheels=('nvidia-cuda-nvcc==13.0.88' 'nvidia-cuda-crt==13.0.88' 'nvidia-nvvm==13.0.88'
  'nvidia-cuda-runtime==13.0.96' 'nvidia-cuda-cccl==13.0.85')
for nvcc in "${CUDA_HOME:-/nonexistent}/bin/nvcc" "$(command -v nvcc || true)"; do
  if [ -n "$nvcc" ] && is_usable "$nvcc"; then
    if [ "${1:-}" = --version ]; then "$nvcc" --version; else echo "$nvcc"; fi
    exit 0
  fi
done
if [ "${1:-}" = --version ]; then
  printf '%s\n' "${wheels[@]}"
  exit 0
fi
nvcc="$folder/nvidia/cu13/bin/nvcc"
release="${wheels[0]##*==}"
if [ ! -x "$nvcc" ] || [ ! -d "$folder/nvidia_cuda_nvcc-$release.dist-info" ]; then
  command -v python3 >/dev/null || {
    echo "no nvcc of CUDA 13 in CUDA_HOME or PATH, and no python3 to install one with" >&2
    exit 1
  }
  # Everything of one release: nvcc refuses headers and a compiler that do not fit. To the last
  # digit, so that two builds of one commit give the same results.
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" \
    --upgrade "${wheels[@]}" >&2 || {
    echo "could not install the CUDA compiler's wheels; set CUDA_HOME to a CUDA 13 toolkit" >&2
    exit 1
  }
  chmod +x "$folder"/nvidia/cu13/bin/* "$folder"/nvidia/cu13/nvvm/bin/* 2>/dev/null || true
fi
echo "$nvcc"

#!/usr/bin/env bash
# Installs NVIDIA's CUDA compiler from its wheels where no toolkit is found, and prints nvcc's path.
#
#   kernels/toolkit.sh [FOLDER]      (default: target/cuda-toolkit beside this checkout's sources)
#
# Looks at CUDA_HOME, then at PATH, then at what an earlier run installed; only then does it need
# the network and Python with pip. The folder is never added to a system path; remove it to undo.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
folder="${1:-$root/target/cuda-toolkit}"

if [ -n "${CUDA_HOME:-}" ] && [ -x "$CUDA_HOME/bin/nvcc" ]; then
  echo "$CUDA_HOME/bin/nvcc"
  exit 0
fi
if command -v nvcc >/dev/null; then
  command -v nvcc
  exit 0
fi
nvcc="$folder/nvidia/cu13/bin/nvcc"
if [ ! -x "$nvcc" ]; then
  command -v python3 >/dev/null || {
    echo "no nvcc in CUDA_HOME or PATH, and no python3 to install one with" >&2
    exit 1
  }
  # Everything of one release: nvcc refuses headers and a compiler that do not fit.
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" \
    'nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-crt==13.0.*' 'nvidia-nvvm==13.0.*' \
    'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cccl==13.0.*' >&2 || {
    echo "could not install the CUDA compiler's wheels; set CUDA_HOME to a CUDA 13 toolkit" >&2
    exit 1
  }
  chmod +x "$folder"/nvidia/cu13/bin/* "$folder"/nvidia/cu13/nvvm/bin/* 2>/dev/null || true
fi
echo "$nvcc"

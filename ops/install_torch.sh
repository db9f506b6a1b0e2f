#!/bin/sh
# Install torch into a virtual environment, each file held by its checksum: install_torch.sh .venv/bin [cpu|cuda]
# Unless said otherwise, the build with CUDA's libraries (several GB) where an NVIDIA driver is found, else the one for
# CPUs (0.2 GB): from where pip's configuration says that packages come from, or from PyTorch's own index. Where neither
# has a build for CPUs alone, as for macOS, it is the package index's.
# Of the 4,900 modules that come with it 730 are ever imported: these are compiled, in place of half a minute for all.
set -eu
bin=$1
build=${2:-}
by_pip() {
  "$bin/python" -m pip install --quiet --no-compile --require-hashes --no-deps "$@"
}
is_installed_for_cpus() {
  said=$(by_pip --requirement locks/torch-cpu.txt "$@" 2>&1) && return
  case $said in
    *"No matching distribution"*) return 1 ;;
    *) echo "$said" >&2; exit 1 ;;
  esac
}
if [ -z "$build" ] && { [ -e /proc/driver/nvidia/version ] || nvidia-smi -L >/dev/null 2>&1; }; then
  build=cuda
fi
if [ "$build" = cuda ]; then
  # Of the same version, the build for CPUs would do for pip.
  if "$bin/python" -m pip list --format freeze 2>/dev/null | grep -q '^torch==.*+cpu$'; then
    "$bin/python" -m pip uninstall --quiet --yes torch
  fi
  by_pip --requirement locks/torch.txt
elif ! is_installed_for_cpus && ! is_installed_for_cpus --extra-index-url https://download.pytorch.org/whl/cpu; then
  by_pip --requirement locks/torch.txt
fi
PYTHONDONTWRITEBYTECODE='' "$bin/python" -c 'import torch'

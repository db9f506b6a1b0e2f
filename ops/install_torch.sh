#!/bin/sh
# Install torch into a virtual environment, each file held by its checksum: install_torch.sh .venv/bin
# By pip, whose configuration says where packages come from: the build for CPUs where that offers it, as PyTorch's own
# index does, else the package index's, which on Linux brings CUDA's libraries, several GB.
set -eu
bin=$1
by_pip() {
  "$bin/python" -m pip install --quiet --require-hashes --no-deps --requirement "$1"
}
if ! said=$(by_pip locks/torch-cpu.txt 2>&1); then
  case $said in
    *"No matching distribution"*) by_pip locks/torch.txt ;;
    *) echo "$said" >&2; exit 1 ;;
  esac
fi

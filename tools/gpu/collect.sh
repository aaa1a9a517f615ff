#!/usr/bin/env bash
# Writes the packages of tools/gpu/wheels.txt, for Python 3.12 on Linux, into one archive (32 MB), on a machine with a network:
#   tools/gpu/collect.sh site.tar.xz            (PYTHON=python3.12 selects the interpreter whose pip is used)
set -euo pipefail
archive=${1:?usage: tools/gpu/collect.sh FILE.tar.xz}
pip() { "${PYTHON:-python3}" -m pip --disable-pip-version-check "$@"; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
platforms=()
for version in 2_28 2_27 2_24 2_17 2_12 2_5; do platforms+=(--platform "manylinux_${version}_x86_64"); done
pip wheel --quiet --no-deps --wheel-dir "$folder/wheels" antlr4-python3-runtime==4.9.3
pip install --quiet --no-deps --no-compile --only-binary=:all: --python-version 3.12 --implementation cp "${platforms[@]}" \
  --platform manylinux2014_x86_64 --target "$folder/site" --requirement "$(dirname "$0")/wheels.txt" "$folder"/wheels/*.whl
tar --directory "$folder/site" --create . | xz --threads=0 -6 > "$archive"
du -h "$archive"

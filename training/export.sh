#!/bin/sh
# Exports a checkpoint and rewrites every file that depends on the weights:
#   sh export.sh RUN_DIR DATA_DIR
# PYTHON names the interpreter (default python3).
set -e
cd "$(dirname "$0")"
python=${PYTHON:-python3}
"$python" export.py --checkpoint "$1/checkpoint.pt" --data "$2"
"$python" goldens.py

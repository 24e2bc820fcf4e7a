#!/bin/sh
# Runs the tests with the lowest versions that requirements.txt allows: sh tests/lowest_versions.sh [FOLDER] [pytest's arguments]
set -eu
cd "$(dirname "$0")/.."
folder=${1:-.venv-lowest}
[ $# -eq 0 ] || shift
[ -x "$folder/bin/uv" ] || { python3 -m venv "$folder" && "$folder/bin/pip" install --quiet uv; }
"$folder/bin/uv" pip install --python "$folder/bin/python" --resolution lowest-direct -r requirements.txt
exec "$folder/bin/python" -m pytest "$@"

#!/usr/bin/env bash
# Time a TensorRT engine with trtexec: compute alone, then with the copies in and out; and each layer.
#
#   bash trtexec-bench.sh [MODEL.engine]
#
# Writes MODEL.engine.compute.json and MODEL.engine.copies.json, which `derain bench --from-trtexec FILE` reads, and
# MODEL.engine.profile.json. trtexec 11 turned CUDA graph, spin wait and "no copies" on by default: here all versions
# measure the same. Fix the clocks of a Jetson first: sudo nvpmodel -m 0 && sudo jetson_clocks
set -euo pipefail

# >>> settings
ENGINE="${1:-${ENGINE:-model.engine}}"
# The shape to time of a dynamic model, such as frame:1x720x1280x3; empty for a model of one size.
SHAPES="${SHAPES:-}"
DLA_CORE="${DLA_CORE:-}"
# <<< settings
SECONDS_EACH="${SECONDS_EACH:-10}"

fail() {
  echo "Error: $*" >&2
  exit 1
}

# >>> trtexec
find_trtexec() {
  local candidate
  for candidate in "${TRTEXEC:-}" "$(command -v trtexec || true)" /usr/src/tensorrt/bin/trtexec; do
    if [[ -n "$candidate" && -x "$candidate" ]]; then
      echo "$candidate"
      return
    fi
  done
  fail "trtexec was not found. On a Jetson: sudo apt install libnvinfer-bin. Or name it: TRTEXEC=/path/to/trtexec"
}

# "10.3.0" from a first line such as: &&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --help
version_of() {
  local banner number
  banner="$("$1" --help 2>&1 || true)"
  if [[ ! "$banner" =~ TensorRT\ v([0-9]+) ]]; then
    fail "'$1' does not tell its version: is it trtexec?"
  fi
  number="${BASH_REMATCH[1]}"
  if ((${#number} < 6)); then # 8601 is 8.6.1
    echo "$((number / 1000)).$((number / 100 % 10)).$((number % 100))"
  else
    echo "$((number / 10000)).$((number / 100 % 100)).$((number % 100))"
  fi
}

# at_least VERSION MAJOR MINOR
at_least() {
  local major minor rest
  IFS=. read -r major minor rest <<<"$1"
  ((major > $2 || (major == $2 && minor >= $3)))
}
# <<< trtexec

[[ -s "$ENGINE" ]] || fail "The engine '$ENGINE' does not exist or is empty"
trtexec="$(find_trtexec)"
version="$(version_of "$trtexec")"
at_least "$version" 10 3 || fail "'$trtexec' is TensorRT $version; derain needs 10.3 or newer (JetPack 6.1)"

echo "TensorRT $version on $(uname -m)"
if [[ -r /proc/device-tree/model ]]; then
  tr -d '\0' </proc/device-tree/model && echo
fi
if command -v nvpmodel >/dev/null; then
  nvpmodel -q || true
fi

arguments=(
  "--loadEngine=$ENGINE"
  --useCudaGraph
  --useSpinWait
  --warmUp=1000
  --iterations=200
  "--duration=$SECONDS_EACH"
  --infStreams=1
  "--percentile=50,99"
)
[[ -z "$SHAPES" ]] || arguments+=("--shapes=$SHAPES")
[[ -z "$DLA_CORE" ]] || arguments+=("--useDLACore=$DLA_CORE")
copies=()
if at_least "$version" 11 0; then
  copies=(--includeDataTransfers)
fi

"$trtexec" "${arguments[@]}" --noDataTransfers "--exportTimes=$ENGINE.compute.json" ||
  fail "trtexec could not run '$ENGINE'; its messages are above"
"$trtexec" "${arguments[@]}" ${copies[@]+"${copies[@]}"} "--exportTimes=$ENGINE.copies.json" \
  --separateProfileRun "--exportProfile=$ENGINE.profile.json" ||
  fail "trtexec could not run '$ENGINE' with copies; its messages are above"
echo "Wrote $ENGINE.compute.json, $ENGINE.copies.json and $ENGINE.profile.json"

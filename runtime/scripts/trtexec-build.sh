#!/usr/bin/env bash
# Build a TensorRT engine of a derain model with trtexec, on the machine that will run it.
#
#   bash trtexec-build.sh [MODEL.onnx [MODEL.engine]]
#
# For TensorRT 10.3 (JetPack 6.1, 6.2), 10.13 and 10.16 (JetPack 7) and 11. The precision is the model's own: give the
# .fp16.onnx or .int8.onnx that derain export and derain calibrate wrote. Each setting below can also be given in the
# environment. `derain build --script` fills them in from the model card.
set -euo pipefail

# >>> settings
ONNX="${1:-${ONNX:-model.onnx}}"
ENGINE="${2:-${ENGINE:-${ONNX%.onnx}.engine}}"
# Of dynamic models, such as frame:1x64x64x3; all three empty for a model of one size.
MIN_SHAPES="${MIN_SHAPES:-}"
OPT_SHAPES="${OPT_SHAPES:-}"
MAX_SHAPES="${MAX_SHAPES:-}"
WORKSPACE_MIB="${WORKSPACE_MIB:-}"
LEVEL="${LEVEL:-3}"
DLA_CORE="${DLA_CORE:-}"
HARDWARE_COMPATIBLE="${HARDWARE_COMPATIBLE:-}"
VERSION_COMPATIBLE="${VERSION_COMPATIBLE:-}"
CARD=""
# <<< settings
TIMING_CACHE="${TIMING_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/derain/trtexec}"

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

# As inside the quotes of a JSON string.
json_text() {
  printf '%s' "$1" | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g'
}

[[ -s "$ONNX" ]] || fail "The model '$ONNX' does not exist or is empty"
trtexec="$(find_trtexec)"
version="$(version_of "$trtexec")"
at_least "$version" 10 3 || fail "'$trtexec' is TensorRT $version; derain needs 10.3 or newer (JetPack 6.1)"

part="$ENGINE.partial"
trap 'rm -f "$part"' EXIT
arguments=(
  "--onnx=$ONNX"
  "--saveEngine=$part"
  --stronglyTyped
  --skipInference
  "--builderOptimizationLevel=$LEVEL"
  "--profilingVerbosity=detailed"
  "--timingCacheFile=$TIMING_CACHE/timings-$version.cache"
  "--exportLayerInfo=$ENGINE.layers.json"
)
if [[ -n "$MIN_SHAPES$OPT_SHAPES$MAX_SHAPES" ]]; then
  arguments+=("--minShapes=$MIN_SHAPES" "--optShapes=$OPT_SHAPES" "--maxShapes=$MAX_SHAPES")
fi
[[ -z "$WORKSPACE_MIB" ]] || arguments+=("--memPoolSize=workspace:${WORKSPACE_MIB}M")
[[ -z "$HARDWARE_COMPATIBLE" ]] || arguments+=("--hardwareCompatibilityLevel=ampere+")
[[ -z "$VERSION_COMPATIBLE" ]] || arguments+=(--versionCompatible)
if [[ -n "$DLA_CORE" ]]; then
  if at_least "$version" 10 8 && ! at_least "$version" 11 4; then
    fail "TensorRT $version has no deep learning accelerator; 10.3 to 10.7 have, and 11.4.1 on AGX Orin"
  fi
  arguments+=("--useDLACore=$DLA_CORE" --allowGPUFallback)
fi

mkdir -p "$TIMING_CACHE"
echo "TensorRT $version builds '$ENGINE' from '$ONNX'; this takes minutes."
"$trtexec" "${arguments[@]}" "${@:3}" || fail "trtexec could not build '$ENGINE'; its messages are above"
[[ -s "$part" ]] || fail "trtexec ended without an engine; its messages are above"
mv "$part" "$ENGINE"

# The record by which derain knows the engine: its checksum and its model card.
{
  printf '{"schema_version": 1, "made_by": "trtexec", "plan_bytes": %s, ' "$(wc -c <"$ENGINE" | tr -d ' ')"
  printf '"plan_sha256": "%s", ' "$(sha256sum <"$ENGINE" | cut -d ' ' -f 1)"
  printf '"onnx": "%s", ' "$(json_text "$(basename "$ONNX")")"
  printf '"onnx_sha256": "%s", ' "$(sha256sum <"$ONNX" | cut -d ' ' -f 1)"
  printf '"toolkit": "tensorrt %s%s", ' "$version" "${VERSION_COMPATIBLE:+ or newer}"
  printf '"made": "%s"' "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
  [[ -z "$CARD" ]] || printf ', "card": %s' "$CARD"
  printf '}\n'
} >"$ENGINE.json"
echo "Wrote $ENGINE, $ENGINE.json and $ENGINE.layers.json"

#!/usr/bin/env bash
# Tests and measures Hotspare on a machine with an NVIDIA card. Needs bash, the `hotspare` binary
# (built with `--features cuda`) and, for the stage `models`, the test data; no compiler, no network.
#
#   kernels/verify.sh [--stage kernels|sanitize|models|server|bench]... [--assets DIR]
#                     [--binary FILE] [--device cuda:N] [--out DIR]
#
# Without --stage all run, in this order. Each ends within eight minutes and writes its results as
# they come: OUT/STAGE.jsonl (a line a result) and OUT/STAGE.log (the same for people, and errors);
# OUT/summary.txt is the table of all stages with card, driver, clocks and commit, OUT/summary.json
# the same as JSON. Status 0 only where every stage ran and passed; without a card each stage says
# "no GPU" and fails. `--device cpu` tries the stages that can run without one.
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
stages=()
device="cuda:0"
out=""
binary=""
assets=""
limit_s=475

die() {
  echo "verify.sh: $1" >&2
  exit 2
}
while [ "$#" -gt 0 ]; do
  case "$1" in
    --stage | --assets | --binary | --device | --out)
      [ "$#" -ge 2 ] || die "$1 needs a value"
      case "$1" in
        --stage) stages+=("$2") ;;
        --assets) assets="$2" ;;
        --binary) binary="$2" ;;
        --device) device="$2" ;;
        --out) out="$2" ;;
      esac
      shift 2
      ;;
    -h | --help)
      sed -n '2,14s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    *) die "unknown argument $1; see --help" ;;
  esac
done
[ "${#stages[@]}" -gt 0 ] || stages=(kernels sanitize models server bench)
for stage in "${stages[@]}"; do
  case "$stage" in
    kernels | sanitize | models | server | bench) ;;
    *) die "there is no stage $stage: kernels, sanitize, models, server, bench" ;;
  esac
done
for candidate in "$binary" "$here/hotspare" "$here/../hotspare" "$here/../target/release/hotspare"; do
  if [ -n "$candidate" ] && [ -x "$candidate" ]; then
    binary="$(cd "$(dirname "$candidate")" && pwd)/$(basename "$candidate")"
    break
  fi
done
[ -x "$binary" ] || die "no hotspare binary beside this script; name it with --binary"
for candidate in "$assets" "$here/assets" "$here/../assets" "$here/../../shared/assets"; do
  if [ -n "$candidate" ] && [ -d "$candidate/tiny" ]; then
    assets="$(cd "$candidate" && pwd)"
    break
  fi
done
out="${out:-verify-results}"
mkdir -p "$out" || die "cannot write to $out"

commit="${HOTSPARE_VERIFY_COMMIT:-}"
[ -n "$commit" ] || commit="$(cat "$here/COMMIT" 2>/dev/null || git -C "$here" rev-parse --short HEAD 2>/dev/null || echo unknown)"
export HOTSPARE_VERIFY_COMMIT="$commit"

# What nvidia-smi knows, where it is: the clocks at this moment, and what else uses the card.
smi() {
  command -v nvidia-smi >/dev/null || return 0
  timeout 20 nvidia-smi --query-gpu=index,name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,temperature.gpu,power.draw,memory.used \
    --format=csv,noheader 2>/dev/null
}
{
  echo "Hotspare verify: $(date -u +%Y-%m-%dT%H:%MZ), commit $commit, $("$binary" --version 2>/dev/null)"
  echo "device $device; nvidia-smi: $(smi | tr '\n' ';' | sed 's/;$//')"
} | tee "$out/summary.txt"

# Runs a stage's command with a time limit; its lines go to the log, and here, as they come.
run() {
  timeout --kill-after=5 "$limit_s" "$@" 2>&1 | tee -a "$out/$stage.log"
  return "${PIPESTATUS[0]}"
}

stage_kernels() {
  run "$binary" kernel-tests --device "$device" --json "$out/kernels.jsonl"
}

# memcheck and racecheck over one seed of every kernel. A card that the tool does not accept, or a
# machine without the tool, is said and is no failure of the kernels; without a card it is one.
stage_sanitize() {
  local tool="" candidate mode code status=0
  limit_s=20 run "$binary" kernel-tests --device "$device" --seeds 1 --only conversions || return "$?"
  for candidate in "$(command -v compute-sanitizer)" "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer" \
    "$here/compute-sanitizer/compute-sanitizer"; do
    if [ -n "$candidate" ] && [ -x "$candidate" ]; then
      tool="$candidate"
      break
    fi
  done
  if [ -z "$tool" ]; then
    echo "compute-sanitizer was not found: not run" | tee -a "$out/$stage.log"
    return 77
  fi
  for mode in memcheck racecheck; do
    # A log a mode: what one says of the device is not the other's.
    limit_s=220 run "$tool" --tool "$mode" --error-exitcode 9 --launch-timeout 60 \
      --log-file "$out/sanitize-$mode.tool.log" \
      "$binary" kernel-tests --device "$device" --seeds 1 --time-limit-s 210 \
      --json "$out/sanitize-$mode.jsonl"
    code="$?"
    cat "$out/sanitize-$mode.tool.log" >>"$out/$stage.log" 2>/dev/null
    case "$code" in
      0) ;;
      9) status=1 ;;
      *)
        if grep -qiE 'device (is )?not supported|unsupported (device|gpu)' "$out/sanitize-$mode.tool.log" 2>/dev/null; then
          echo "$mode does not accept this device: not run" | tee -a "$out/$stage.log"
          [ "$status" -ne 0 ] || status=77
        else
          status=1
        fi
        ;;
    esac
  done
  return "$status"
}

stage_models() {
  if [ -z "$assets" ]; then
    echo "no test data: name its folder with --assets" | tee -a "$out/$stage.log"
    return 1
  fi
  run "$binary" model-tests --device "$device" --assets "$assets" --json "$out/models.jsonl"
}

stage_server() {
  run "$binary" server-tests --device "$device" --json "$out/server.jsonl"
}

stage_bench() {
  local models=()
  # A shape for the CPU, so that the stage itself can be tried.
  [ "$device" != cpu ] || models=(--models spark-mini --load-format auto --dtype auto --decode 1,4 --prefill 256 --context 64 --steps 16)
  smi | sed 's/^/before: /' | tee -a "$out/$stage.log"
  run "$binary" bench --device "$device" --json "$out/bench.jsonl" "${models[@]+"${models[@]}"}"
  local status="$?"
  smi | sed 's/^/after: /' | tee -a "$out/$stage.log"
  return "$status"
}

failed=0
json=""
for stage in "${stages[@]}"; do
  echo "== $stage"
  rm -f "$out/$stage.log" "$out/$stage"*.jsonl
  : >"$out/$stage.log"
  start="$(date +%s)"
  "stage_$stage"
  status="$?"
  case "$status" in
    0) word=passed ;;
    3) word="no GPU" ;;
    77) word="not run" ;;
    124 | 137) word="took too long" ;;
    *) word=failed ;;
  esac
  [ "$status" -eq 0 ] || [ "$status" -eq 77 ] || failed=1
  seconds="$(($(date +%s) - start))"
  printf '%-10s %-14s %4d s\n' "$stage" "$word" "$seconds" | tee -a "$out/summary.txt"
  json="$json${json:+,}{\"stage\":\"$stage\",\"result\":\"$word\",\"status\":$status,\"seconds\":$seconds}"
  machine="$(grep -h -m1 '"machine"' "$out/$stage"*.jsonl 2>/dev/null | head -1)"
  printf '{"commit":"%s","date":"%s","device":"%s","nvidia_smi":"%s","machine":%s,"stages":[%s]}\n' \
    "$commit" "$(date -u +%Y-%m-%dT%H:%MZ)" "$device" "$(smi | tr '\n"' "; ")" \
    "${machine:-null}" "$json" >"$out/summary.json"
done
for file in "$out"/bench.log; do
  [ -s "$file" ] && grep -E '^(ok|FAILED) .* (start|decode|prefill|profile) |^(ok|FAILED) .* product [0-9]+x' "$file" >>"$out/summary.txt"
done
echo "results are in $out"
exit "$failed"

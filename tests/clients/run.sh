#!/usr/bin/env bash
# The openai packages for Python and Node against a real server: starts it, runs both suites, stops it.
#
# Needs python3 and node >= 20 and, the first time, the package registries. What they install stays in
# target/clients. HOTSPARE_BIN names the binary (default: target/release/hotspare), HOTSPARE_MODEL a
# model other than the embedded one. Every step is bounded in time; any failure fails the script.
# With --prepare-python it only installs the Python packages. Status 77: the packages could not be installed, and nothing was tested.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
here="$root/tests/clients"
cache="$root/target/clients"
binary="${HOTSPARE_BIN:-$root/target/release/hotspare}"
log="$cache/server.log"
server_pid=""

fail() {
  echo "tests/clients: $*" >&2
  exit 1
}

stop_server() {
  [[ -n "$server_pid" ]] || return 0
  kill -KILL "$server_pid" 2>/dev/null || true
  server_pid=""
}
trap stop_server EXIT

set_up_python() {
  local stamp="$cache/venv/requirements.txt"
  cmp -s "$here/python/requirements.txt" "$stamp" && return
  rm -rf "$cache/venv"
  python3 -m venv "$cache/venv" &&
    timeout 300 "$cache/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
      -r "$here/python/requirements.txt" || return
  cp "$here/python/requirements.txt" "$stamp"
}

set_up_node() {
  mkdir -p "$cache/node"
  cp "$here"/node/*.mjs "$here/node/package.json" "$cache/node/"
  cmp -s "$here/node/package-lock.json" "$cache/node/installed-lock.json" && return
  cp "$here/node/package-lock.json" "$cache/node/"
  (cd "$cache/node" && timeout 300 npm ci --no-audit --no-fund --loglevel=error) || return
  cp "$here/node/package-lock.json" "$cache/node/installed-lock.json"
}

start_server() {
  export HOTSPARE_TEST_KEY="client-test-key"
  # Slow steps, so that a stream that a suite closes has not ended by itself however busy the machine is.
  HOTSPARE_FAULTS="slow-step-ms=3" "$binary" serve ${HOTSPARE_MODEL:+"$HOTSPARE_MODEL"} --host 127.0.0.1 --port 0 \
    --api-key "$HOTSPARE_TEST_KEY" >"$log" 2>&1 &
  server_pid=$!
  for _ in $(seq 600); do
    kill -0 "$server_pid" 2>/dev/null || { cat "$log" >&2; fail "the server ended"; }
    HOTSPARE_TEST_URL="$(sed -n 's|.*listening on \(http://[0-9.]*:[0-9]*\).*|\1|p' "$log" | head -1)"
    if [[ -n "$HOTSPARE_TEST_URL" ]] && curl -fsS -m 5 -o /dev/null "$HOTSPARE_TEST_URL/ready" 2>/dev/null
    then
      export HOTSPARE_TEST_URL
      return
    fi
    sleep 0.1
  done
  cat "$log" >&2
  fail "the server was not ready within a minute"
}

# SIGTERM drains and ends with status 0.
end_server() {
  local pid="$server_pid" status=0
  kill -TERM "$pid"
  for _ in $(seq 200); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -0 "$pid" 2>/dev/null && fail "the server did not end within 20 s of SIGTERM"
  wait "$pid" || status=$?
  server_pid=""
  [[ "$status" == 0 ]] || fail "the server ended with status $status after SIGTERM"
}

mkdir -p "$cache"
# Other tests want the same packages.
exec 9>"$cache/lock"
flock 9
set_up_python || exit 77
if [[ "${1:-}" == --prepare-python ]]; then exit; fi
[[ -x "$binary" ]] || fail "$binary is not there: run cargo build --release first"
set_up_node || exit 77
exec 9>&-
start_server
failed=()
(cd "$here/python" && PYTHONDONTWRITEBYTECODE=1 timeout 300 "$cache/venv/bin/python" -m unittest -q) ||
  failed+=(python)
(cd "$cache/node" && timeout 300 node --test --test-reporter=spec ./*.test.mjs) || failed+=(node)
if ((${#failed[@]})); then
  tail -n 40 "$log" >&2
  fail "failed: ${failed[*]}"
fi
end_server
echo "tests/clients: the openai packages for Python and Node pass"

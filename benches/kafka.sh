#!/usr/bin/env bash
# Rows per second of the main job beside a bare drain of the same topic, on one machine with one broker.
#
#   benches/kafka.sh [ROWS] [PAIRS] [RUNS]      default 1000000 999 3; ZETA=path of the binary (release by default)
#
# Both read the same topic of 4 partitions in turn, so the ratio holds when the machine's speed drifts. Whole-process figures:
# `zeta run` counts from the first committed row to the last, the drain from its first message to its last.
set -euo pipefail
cd "$(dirname "$0")/.."

rows=${1:-1000000} pairs=${2:-999} runs=${3:-3}
zeta=${ZETA:-${CARGO_TARGET_DIR:-$HOME/.cache/zeta/target}/release/zeta}
work=$(mktemp -d)
export ZETA_SERVICE_DIR=$work/kafka
mkdir -p "$ZETA_SERVICE_DIR"
pid=
cleanup() {
    [[ -z $pid ]] || kill "$pid" 2>/dev/null || true
    tests/services/kafka.sh wipe >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap cleanup EXIT

tests/services/kafka.sh up
# shellcheck source=/dev/null
. "$ZETA_SERVICE_DIR/env"
days=$((rows / pairs / 1440 + 1))
"$zeta" generate --pairs "$pairs" --days "$days" --seed 1 --out "$work/dataset"
"$zeta" topics create candles -p 4 --config retention.ms=-1 --brokers "$KAFKA_BROKERS"
"$zeta" replay "$work/dataset" --topic candles --brokers "$KAFKA_BROKERS" --max --limit "$rows"

number() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" | head -n 1; }
cpu_ms() { awk '{ print ($14 + $15) * 10 }' "/proc/$1/stat"; }

for ((run = 1; run <= runs; run++)); do
    "$zeta" topics drain candles --brokers "$KAFKA_BROKERS"

    KAFKA=$KAFKA_BROKERS HISTORY=$work/dataset "$zeta" --log-level warn run sql/candles.sql \
        --listen 127.0.0.1:0 --state "$work/state-$run" 2>"$work/run.log" &
    pid=$!
    until url=$(sed -n 's/^zeta: \(http.*\)$/\1/p' "$work/run.log") && [[ -n $url ]]; do kill -0 "$pid"; sleep 0.01; done
    start=
    while :; do
        now=$(date +%s%N)
        seen=$(curl -s "$url/api/v1/sources" | number rows)
        [[ -n $start || ${seen:-0} == 0 ]] || { start=$now; first=$seen; }
        ((${seen:-0} < rows)) || break
        kill -0 "$pid"
        sleep 0.02
    done
    seconds=$(awk -v ns=$((now - start)) 'BEGIN { print ns / 1e9 }')
    awk -v rows=$((rows - first)) -v all="$rows" -v s="$seconds" -v cpu="$(cpu_ms "$pid")" \
        'BEGIN { printf "zeta run: %d rows, %.2f s behind the first epoch: %.3f M rows/s; %.2f CPU s in all = %.3f M rows per CPU second\n", all, s, s ? rows / s / 1e6 : 0, cpu / 1e3, all / cpu / 1e3 }'
    kill "$pid"
    wait "$pid" || true
    pid=
done

#!/usr/bin/env bash
# How long a pipeline is away that is killed: from kill -9 to the first epoch that a new process commits, under 100,000 rows a second
# that another process sends into a topic of Kafka all the time, and how long its epochs stood still for checkpoints.
#   benches/recovery.sh [ZETA] [GROUPS] [ROUNDS] [RATE]        e.g. benches/recovery.sh target/release/zeta 300000 20
set -euo pipefail

zeta=${1:-target/release/zeta}
groups=${2:-300000}
rounds=${3:-20}
rate=${4:-100000}
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
export ZETA_SERVICE_DIR=$work/kafka
pid=
sender=

finish() {
    [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
    [ -z "$sender" ] || kill -9 "$sender" 2>/dev/null || true
    "$here/tests/services/kafka.sh" wipe >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT

"$here/tests/services/kafka.sh" up >/dev/null
# shellcheck source=/dev/null
source "$ZETA_SERVICE_DIR/env"
"$zeta" topics create candles --partitions 4 --brokers "$KAFKA_BROKERS" 2>/dev/null

# A row for each of 100 pairs and each minute.
"$zeta" generate --pairs 100 --days 30 --seed 1 --out "$work/history" 2>/dev/null
"$zeta" replay "$work/history" --topic candles --brokers "$KAFKA_BROKERS" --columns open_time,close,volume --rate "$rate" --loop \
    >/dev/null 2>"$work/sender.log" &
sender=$!
cat >"$work/pipeline.sql" <<SQL
CREATE SOURCE candles (symbol VARCHAR NOT NULL, open_time TIMESTAMP NOT NULL, close REAL, volume REAL)
WITH (connector = 'kafka', topic = 'candles', 'bootstrap.servers' = '$KAFKA_BROKERS');
CREATE MATERIALIZED VIEW totals WITH (unbounded_state = 'allow') AS
SELECT symbol, CAST(extract(epoch FROM open_time) AS BIGINT) / 60 % $((groups / 100)) AS minute, count(*) AS n, sum(volume) AS volume,
  max(close) AS high, avg(close) AS average
FROM candles GROUP BY 1, 2;
SQL

start() {
    : >"$work/log"
    # A port of its own each time: one that was just given back may still be taken.
    "$zeta" run "$work/pipeline.sql" --state "$work/state" --listen 127.0.0.1:0 2>"$work/log" &
    pid=$!
}

metrics() {
    url=$(sed -n 's/^zeta: //p' "$work/log" | head -1)
    [ -n "$url" ] && curl -sf "$url/metrics"
}

metric() {
    metrics | awk -v name="$1" 'index($1, name) == 1 { sum += $2 } END { printf "%d", sum }'
}

start
until [ "$(metric 'zeta_view_rows{' 2>/dev/null || echo 0)" -ge $((groups * 9 / 10)) ]; do sleep 1; done
printf '%-6s %12s %14s %12s %12s\n' round state_mb checkpoint_mb away_ms stall_ms
for round in $(seq "$rounds"); do
    # Anywhere between two checkpoints, the first of this process behind it.
    until grep -q 'checkpoint written' "$work/log"; do sleep 0.1; done
    sleep "$((RANDOM % 10)).$((RANDOM % 10))"
    state=$(($(metric 'zeta_state_bytes{') >> 20))
    bytes=$(sed -n 's/.*checkpoint written.* bytes=\([0-9]*\).*/\1/p' "$work/log" | tail -1)
    stall=$(sed -n 's/.*checkpoint written.* stall_ms=\([0-9]*\).*/\1/p' "$work/log" | sort -n | tail -1)
    kill -9 "$pid"
    began=$(date +%s%N)
    wait "$pid" 2>/dev/null || true
    start
    until [ "$(metric 'zeta_epochs_total{' 2>/dev/null || echo 0)" -gt 0 ]; do sleep 0.01; done
    away=$((($(date +%s%N) - began) / 1000000))
    printf '%-6s %12s %14s %12s %12s\n' "$round" "$state" "$((bytes >> 20))" "$away" "$stall"
    echo "$away" >>"$work/away"
done
sort -n "$work/away" | awk '{ all[NR] = $1 } END { printf "median %d ms, longest %d ms\n", all[int((NR + 1) / 2)], all[NR] }'

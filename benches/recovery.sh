#!/usr/bin/env bash
# How long a pipeline is away that is killed: from kill -9 to the first epoch that a new process commits, under 100,000 rows a second,
# and how long its epochs stood still for checkpoints.
#   benches/recovery.sh [ZETA] [GROUPS] [ROUNDS] [RATE]        e.g. benches/recovery.sh target/release/zeta 300000 20
set -euo pipefail

zeta=${1:-target/release/zeta}
groups=${2:-300000}
rounds=${3:-20}
rate=${4:-100000}
work=$(mktemp -d)
pid=

finish() {
    [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

# Of 50 events 46 are bids.
cat >"$work/pipeline.sql" <<SQL
CREATE SOURCE bid (auction BIGINT, bidder BIGINT, price BIGINT, date_time TIMESTAMP)
WITH (connector = 'nexmark', splits = '2', events_per_second = '$((rate * 50 / 46))', speed = '1');
CREATE MATERIALIZED VIEW totals AS
SELECT (auction * 104729 + bidder * 1299709 + price * 7919) % $groups AS number, count(*) AS bids, sum(price) AS total, max(price) AS highest,
  avg(price) AS average
FROM bid GROUP BY 1;
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

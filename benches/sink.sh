#!/usr/bin/env bash
# What exactly-once costs: the same rows through a Kafka sink with and without transactions, in turns, on a broker of its own.
#   benches/sink.sh [ZETA] [EVENTS] [ROUNDS]        e.g. benches/sink.sh target/release/zeta 2000000 5
set -euo pipefail

zeta=${1:-target/release/zeta}
events=${2:-1000000}
rounds=${3:-5}
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
export ZETA_SERVICE_DIR=$work/kafka
pid=

finish() {
    [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
    "$here/tests/services/kafka.sh" wipe >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT

"$here/tests/services/kafka.sh" up >/dev/null
# shellcheck source=/dev/null
source "$ZETA_SERVICE_DIR/env"
brokers=$KAFKA_BROKERS

metric() {
    curl -sf "$url/metrics" | awk -v name="$1" 'index($1, name "{") == 1 { sum += $2 } END { printf "%d", sum }'
}

# Prints the rows per second of one run.
run() {
    local delivery=$1 name=$2
    "$zeta" topics create "$name" --partitions 4 --brokers "$brokers" 2>/dev/null
    cat >"$work/$name.sql" <<SQL
CREATE SOURCE bid (auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, date_time TIMESTAMP)
WITH (connector = 'nexmark', events = '$events');
CREATE MATERIALIZED VIEW bids AS SELECT auction, bidder, price, channel, date_time FROM bid;
CREATE SINK out FROM bids WITH (connector = 'kafka', topic = '$name', 'bootstrap.servers' = '$brokers',
  delivery = '$delivery', transactional_id = '$name');
SQL
    local began ended rows
    "$zeta" run "$work/$name.sql" --state "$work/$name" --listen 127.0.0.1:0 2>"$work/$name.log" &
    pid=$!
    until url=$(sed -n 's/^zeta: //p' "$work/$name.log" | head -1) && [ -n "$url" ]; do sleep 0.05; done
    until [ "$(metric zeta_sink_rows_total)" -gt 0 ]; do sleep 0.02; done
    began=$(date +%s%N)
    local before
    before=$(metric zeta_sink_rows_total)
    rows=$((events * 46 / 50))
    until [ "$(metric zeta_sink_rows_total)" -ge "$rows" ]; do sleep 0.02; done
    ended=$(date +%s%N)
    kill -TERM "$pid"
    wait "$pid" || true
    pid=
    "$zeta" topics delete "$name" --brokers "$brokers" 2>/dev/null
    echo $(((rows - before) * 1000000000 / (ended - began)))
}

printf '%-6s %16s %16s %8s\n' round exactly_once at_least_once ratio
for round in $(seq "$rounds"); do
    exactly=$(run exactly_once "exactly_$round")
    least=$(run at_least_once "least_$round")
    printf '%-6s %16s %16s %8s\n' "$round" "$exactly" "$least" "$(awk "BEGIN { printf \"%.2f\", $exactly / $least }")"
done

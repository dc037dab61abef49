#!/usr/bin/env bash
# Tries every service for real: up, write, kill -9, up, read, down, up, wipe. Run it after a change of a version or a setting.
#
#   check.sh [kafka|kafka-zookeeper|hdfs|nginx]...   default: all
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SCRATCH=$(mktemp -d)
SERVICES=("$@")
((${#SERVICES[@]} > 0)) || SERVICES=(kafka kafka-zookeeper hdfs nginx)

cleanup() {
    for service in "${SERVICES[@]}"; do ZETA_SERVICE_DIR=$SCRATCH/$service "$HERE/$service.sh" wipe; done
    rm -rf "$SCRATCH"
}
trap cleanup EXIT

# expect WHAT WANTED GOT
expect() { [[ $2 == "$3" ]] || { echo "check: $1: expected '$2', got '$3'" >&2; exit 1; }; }

check_kafka() { # SCRIPT
    printf 'one\ntwo\n' >"$SCRATCH/rows"
    "$1" topics --create --topic check --partitions 1
    "$1" produce --topic check <"$SCRATCH/rows"
    "$1" kill
    "$1" up
    expect "$1" "$(<"$SCRATCH/rows")" "$("$1" consume --topic check --from-beginning --max-messages 2 --timeout-ms 20000 2>/dev/null)"
}

check_hdfs() {
    echo some bytes >"$SCRATCH/file"
    "$1" put "$SCRATCH/file" /check/folder/
    "$1" kill namenode
    "$1" kill datanode
    "$1" up
    expect "$1" "some bytes" "$("$1" dfs -cat /check/folder/file)"
}

check_nginx() {
    # Nobody listens on port 1, so this also is what a reader sees while Zeta is down.
    expect "$1" 502 "$(node -e 'fetch(process.argv[1]).then((answer) => console.log(answer.status))' \
        "$(sed -n 's/^NGINX_URL=//p' "$ZETA_SERVICE_DIR/env")/api/v1/views")"
    "$1" kill
    "$1" up
}

for service in "${SERVICES[@]}"; do
    script=$HERE/$service.sh
    export ZETA_SERVICE_DIR=$SCRATCH/$service
    if [[ $service == nginx ]]; then
        mkdir -p "$SCRATCH/page"
        echo page >"$SCRATCH/page/index.html"
        export ZETA_ADDRESS=127.0.0.1:1 STATIC_ROOT=$SCRATCH/page
    fi
    "$script" up
    case $service in
        kafka*) check_kafka "$script" ;;
        *) "check_$service" "$script" ;;
    esac
    "$script" down
    ! "$script" status >/dev/null || { echo "check: $service is still up after down" >&2; exit 1; }
    "$script" up
    "$script" status
done

#!/usr/bin/env bash
# Runs one Kafka 3.9 broker on one ZooKeeper 3.8 server, the way of clusters that were never moved to KRaft, on 127.0.0.1.
#
#   kafka-zookeeper.sh setup                         download jars, make class archives (once per machine)
#   kafka-zookeeper.sh up                            start both and wait until the broker answers; writes $ZETA_SERVICE_DIR/env
#   kafka-zookeeper.sh down                          end both cleanly; the data stays, `up` takes the same ports again
#   kafka-zookeeper.sh kill                          end the broker with kill -9
#   kafka-zookeeper.sh kill-zookeeper                end ZooKeeper with kill -9; `up` starts it again
#   kafka-zookeeper.sh status                        a line per process; exit code 1 when one is down
#   kafka-zookeeper.sh wipe                          end both and remove $ZETA_SERVICE_DIR
#   kafka-zookeeper.sh topics|produce|consume ARG... Kafka's own tools on this broker
#
# env:   KAFKA_BROKERS, KAFKA_PORT, ZOOKEEPER_PORT
# takes: KAFKA_PORT, ZOOKEEPER_PORT (default: free ones), KAFKA_HEAP (512m), ZOOKEEPER_HEAP (128m), KAFKA_SETTINGS (more
#        lines for server.properties, the last of a key counts); and what common.sh names

# shellcheck source-path=SCRIPTDIR
SERVICE=kafka-zookeeper
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=kafka-common.sh
source "$HERE/kafka-common.sh"
CONSOLE_PRODUCER=kafka.tools.ConsoleProducer

write_settings() {
    cat >"$DIR/zookeeper.properties" <<SETTINGS
tickTime=1000
dataDir=$DIR/zookeeper
clientPortAddress=127.0.0.1
clientPort=$ZOOKEEPER_PORT
admin.enableServer=false
4lw.commands.whitelist=srvr,dump
SETTINGS
    cat >"$DIR/server.properties" <<SETTINGS
broker.id=1
listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT
advertised.listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT
zookeeper.connect=127.0.0.1:$ZOOKEEPER_PORT
zookeeper.session.timeout.ms=4000
$(kafka_settings)
${KAFKA_SETTINGS:-}
SETTINGS
}

# ZooKeeper's commands of four letters are the whole request.
ask_zookeeper() {
    {
        exec 3<>"/dev/tcp/127.0.0.1/$ZOOKEEPER_PORT"
        printf %s "$1" >&3
        timeout 5 cat <&3
    } 2>/dev/null
}
zookeeper_answers() { [[ $(ask_zookeeper srvr) == *"Mode: standalone"* ]]; }

# After kill -9 the broker's registration lives as long as its session; a new broker of that id would give up at once.
is_unregistered() {
    local sessions
    sessions=$(ask_zookeeper dump) && [[ $sessions == *"Sessions with Ephemerals"* && $sessions != */brokers/ids/1* ]]
}

up() {
    own_instance
    find_jars
    port KAFKA_PORT
    port ZOOKEEPER_PORT
    set_env KAFKA_BROKERS "127.0.0.1:$KAFKA_PORT"
    write_settings
    if ! is_running zookeeper; then
        must_be_free "$ZOOKEEPER_PORT"
        launch_java zookeeper -XX:TieredStopAtLevel=1 "-Xmx${ZOOKEEPER_HEAP:-128m}" \
            org.apache.zookeeper.server.quorum.QuorumPeerMain "$DIR/zookeeper.properties"
    fi
    wait_until zookeeper zookeeper_answers
    if ! is_running kafka; then
        must_be_free "$KAFKA_PORT"
        wait_until zookeeper is_unregistered
        launch_java kafka "-Xmx${KAFKA_HEAP:-512m}" kafka.Kafka "$DIR/server.properties"
    fi
    wait_until kafka kafka_answers
    say "up on $(get_env KAFKA_BROKERS) after $SECONDS s"
}

case ${1:-} in
    setup) warm zookeeper kafka ;;
    up) up ;;
    down) with_instance end_all kafka zookeeper ;;
    kill) with_instance end kafka KILL ;;
    kill-zookeeper) with_instance end zookeeper KILL ;;
    status) report zookeeper kafka ;;
    wipe) with_instance remove_all kafka zookeeper ;;
    topics | produce | consume) kafka_tool "$@" ;;
    *) usage ;;
esac

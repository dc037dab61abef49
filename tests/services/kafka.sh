#!/usr/bin/env bash
# Runs one Kafka 4 broker with its KRaft controller, in one JVM on 127.0.0.1.
#
#   kafka.sh setup                         download jars, make class archives (once per machine)
#   kafka.sh up                            start it and wait until it answers; writes $ZETA_SERVICE_DIR/env
#   kafka.sh down | kill                   end it cleanly | with kill -9; the data stays, `up` takes the same port again
#   kafka.sh pause | resume                freeze it | let it go on (SIGSTOP, SIGCONT)
#   kafka.sh status                        a line per process; exit code 1 when one is down
#   kafka.sh wipe                          end it and remove $ZETA_SERVICE_DIR
#   kafka.sh topics|produce|consume|configs|acls ARG... Kafka's own tools on this broker
#
# env:   KAFKA_BROKERS, KAFKA_PORT, KAFKA_CONTROLLER_PORT
# takes: KAFKA_LISTENERS, more places to listen at, as NAME=PROTOCOL:PORT:ADVERTISED_PORT and blanks between them (a client that
#        comes to one of them is told the advertised port, e.g. that of a proxy); KAFKA_PORT, KAFKA_CONTROLLER_PORT (default: free ones), KAFKA_HEAP (512m), KAFKA_SETTINGS (more lines for
#        server.properties, the last of a key counts); and what common.sh names

# shellcheck source-path=SCRIPTDIR
SERVICE=kafka
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=kafka-common.sh
source "$HERE/kafka-common.sh"
CONSOLE_PRODUCER=org.apache.kafka.tools.ConsoleProducer

write_settings() {
    local name rest protocol port advertised
    local listeners="CLIENTS://127.0.0.1:$KAFKA_PORT" told="CLIENTS://127.0.0.1:$KAFKA_PORT" protocols="CLIENTS:PLAINTEXT"
    for rest in ${KAFKA_LISTENERS:-}; do
        name=${rest%%=*}
        IFS=: read -r protocol port advertised <<<"${rest#*=}"
        listeners+=",$name://127.0.0.1:$port"
        told+=",$name://127.0.0.1:$advertised"
        protocols+=",$name:$protocol"
    done
    cat >"$DIR/server.properties" <<SETTINGS
process.roles=broker,controller
node.id=1
listeners=$listeners,CONTROLLER://127.0.0.1:$KAFKA_CONTROLLER_PORT
advertised.listeners=$told
listener.security.protocol.map=$protocols,CONTROLLER:PLAINTEXT
inter.broker.listener.name=CLIENTS
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:$KAFKA_CONTROLLER_PORT
$(kafka_settings)
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=2
# After kill -9 the controller holds the broker's registration for so long, and refuses it a new one.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
${KAFKA_SETTINGS:-}
SETTINGS
}

# A JVM only to write two small files takes longer than the start of the broker: format once, copy from then on.
format() {
    local template=$JARS/formatted
    [[ ! -f $DIR/log/meta.properties ]] || return 0
    if [[ ! -d $template ]]; then
        sed "s|^log.dirs=.*|log.dirs=$DIR/format|" "$DIR/server.properties" >"$DIR/format.properties"
        java_tool kafka.tools.StorageTool format --cluster-id zeta-tests-00000000000 --config "$DIR/format.properties" \
            >"$DIR/format.log" 2>&1 || give_up format "Kafka could not format its log folder"
        # Another instance may have been quicker.
        mv -T "$DIR/format" "$template" 2>/dev/null || [[ -d $template ]]
    fi
    mkdir -p "$DIR/log"
    cp -r "$template/." "$DIR/log"
    # Two clusters must not look like one, not even to a client that compares their names.
    sed -i "s|^cluster.id=.*|cluster.id=$(random_id)|; s|^directory.id=.*|directory.id=$(random_id)|" "$DIR/log/meta.properties"
}

# Kafka's form of an id: 16 bytes, base64 for URLs without padding. It may not begin with a dash.
random_id() { echo "A$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | head -c 21)"; }

up() {
    own_instance
    find_jars
    port KAFKA_PORT
    port KAFKA_CONTROLLER_PORT
    set_env KAFKA_BROKERS "127.0.0.1:$KAFKA_PORT"
    if ! is_running kafka; then
        must_be_free "$KAFKA_PORT" "$KAFKA_CONTROLLER_PORT"
        write_settings
        format
        launch_java kafka "-Xmx${KAFKA_HEAP:-512m}" kafka.Kafka "$DIR/server.properties"
    fi
    wait_until kafka kafka_answers
    say "up on $(get_env KAFKA_BROKERS) after $SECONDS s"
}

case ${1:-} in
    setup) warm kafka ;;
    up) up ;;
    down) with_instance end kafka ;;
    kill) with_instance end kafka KILL ;;
    pause) with_instance send_signal kafka STOP ;;
    resume) with_instance send_signal kafka CONT ;;
    status) report kafka ;;
    wipe) with_instance remove_all kafka ;;
    topics | produce | consume | configs | acls) kafka_tool "$@" ;;
    *) usage ;;
esac

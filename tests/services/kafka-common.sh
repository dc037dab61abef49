# shellcheck shell=bash
# What kafka.sh and kafka-zookeeper.sh share: settings of a small broker, the question whether it answers, its tools.

# Settings of one broker that keeps everything that tests write.
kafka_settings() {
    cat <<SETTINGS
log.dirs=$DIR/log
# A topic that a test forgot to create must be an error, as in most companies.
auto.create.topics.enable=false
# Rows carry event times of years ago; with a retention the broker would delete them minutes later.
log.retention.ms=-1
# Internal topics of a cluster of one, small so that the first group and the first transaction do not wait long.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
group.initial.rebalance.delay.ms=0
# By default the log cleaner alone takes 128 MiB of the heap.
log.cleaner.dedupe.buffer.size=8388608
SETTINGS
}

# Does the broker answer a Metadata request with at least one broker, itself?
# The request: 14 bytes follow; key 3, version 1; correlation 7; no client id; no topics.
# The answer: its size, the correlation, the number of brokers, 4 bytes each.
kafka_answers() {
    local answer
    answer=$({
        exec 3<>"/dev/tcp/127.0.0.1/$KAFKA_PORT"
        printf '\0\0\0\x0e' >&3
        printf '\0\x03\0\x01\0\0\0\x07\xff\xff\0\0\0\0' >&3
        timeout 5 head -c 12 <&3 | od -An -v -tx1 -w12
    } 2>/dev/null) || return 1
    [[ $answer =~ ^" "(.. ){4}"00 00 00 07 00 00 00 "0[1-9] ]]
}

# kafka_tool NAME ARGUMENT...: Kafka's own command line tools, with the address of this broker.
kafka_tool() {
    local name=$1 class
    shift
    case $name in
        topics) class=org.apache.kafka.tools.TopicCommand ;;
        produce) class=$CONSOLE_PRODUCER ;;
        consume) class=org.apache.kafka.tools.consumer.ConsoleConsumer ;;
        configs) class=kafka.admin.ConfigCommand ;;
        acls) class=org.apache.kafka.tools.AclCommand ;;
    esac
    find_jars
    java_tool "$class" --bootstrap-server "$(get_env KAFKA_BROKERS)" "$@"
}

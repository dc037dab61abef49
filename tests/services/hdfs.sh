#!/usr/bin/env bash
# Runs HDFS on 127.0.0.1: one NameNode and one DataNode.
#
#   hdfs.sh setup                     download jars, make class archives (once per machine)
#   hdfs.sh up                        start both and wait until files can be written; writes $ZETA_SERVICE_DIR/env
#   hdfs.sh down                      end both cleanly; the data stays, `up` takes the same ports again
#   hdfs.sh kill [namenode|datanode]  end one with kill -9 (default: namenode)
#   hdfs.sh pause|resume [namenode|datanode]  freeze one (default: namenode) | let it go on (SIGSTOP, SIGCONT)
#   hdfs.sh status                    a line per process; exit code 1 when one is down
#   hdfs.sh wipe                      end both and remove $ZETA_SERVICE_DIR
#   hdfs.sh put LOCAL... REMOTE       copy files into HDFS, over what is there; folders on the way are made
#   hdfs.sh conf                      print the folder that clients want as HADOOP_CONF_DIR
#   hdfs.sh dfs ARG...                as `hdfs dfs`, e.g. dfs -ls -R /
#   hdfs.sh dfsadmin ARG...           as `hdfs dfsadmin`, e.g. dfsadmin -setQuota 10 /folder
#
# env:   HDFS_URL, HADOOP_CONF_DIR, HDFS_PORT, HDFS_HTTP_PORT, HDFS_DATANODE_PORT, HDFS_DATANODE_HTTP_PORT,
#        HDFS_DATANODE_IPC_PORT
# takes: the ports (default: free ones), HDFS_HEAP (256m, of each); and what common.sh names

# shellcheck source-path=SCRIPTDIR
SERVICE=hdfs
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
CONF=$DIR/conf

property() { echo "  <property><name>$1</name><value>$2</value></property>"; }
xml() { echo '<configuration>'; cat; echo '</configuration>'; }

write_settings() {
    mkdir -p "$CONF"
    {
        property fs.defaultFS "hdfs://127.0.0.1:$HDFS_PORT"
        property hadoop.tmp.dir "$DIR/tmp"
        # Without a value the daemons look up the name of this machine, which need not resolve.
        property hadoop.http.authentication.kerberos.principal HTTP/localhost@LOCALHOST
    } | xml >"$CONF/core-site.xml"
    {
        property dfs.replication 1
        property dfs.namenode.rpc-address "127.0.0.1:$HDFS_PORT"
        property dfs.namenode.http-address "127.0.0.1:$HDFS_HTTP_PORT"
        property dfs.namenode.name.dir "file://$DIR/namenode"
        property dfs.datanode.address "127.0.0.1:$HDFS_DATANODE_PORT"
        property dfs.datanode.http.address "127.0.0.1:$HDFS_DATANODE_HTTP_PORT"
        property dfs.datanode.ipc.address "127.0.0.1:$HDFS_DATANODE_IPC_PORT"
        property dfs.datanode.data.dir "file://$DIR/datanode"
        # Addresses in place of names, for the same reason as above.
        property dfs.datanode.hostname 127.0.0.1
        property dfs.namenode.datanode.registration.ip-hostname-check false
        # Leave safe mode at once when the DataNode is there, and notice its death within seconds, not ten minutes.
        property dfs.namenode.safemode.min.datanodes 1
        property dfs.namenode.safemode.extension 0
        property dfs.heartbeat.interval 1
        property dfs.namenode.heartbeat.recheck-interval 2000
        # The default reserve of 100 MiB per disk makes a nearly full machine look like a broken HDFS.
        property dfs.namenode.resource.du.reserved 1048576
        # With a single DataNode there is none to replace it by; a client must not insist.
        property dfs.client.block.write.replace-datanode-on-failure.best-effort true
    } | xml >"$CONF/hdfs-site.xml"
}

# A folder on the class path would make the class archives useless, so the settings come by name.
SETTINGS=(-conf "$CONF/core-site.xml" -conf "$CONF/hdfs-site.xml")

# As with Kafka: format once, copy from then on.
format() {
    local template=$JARS/formatted
    [[ ! -d $DIR/namenode/current ]] || return 0
    if [[ ! -d $template ]]; then
        java_tool org.apache.hadoop.hdfs.server.namenode.NameNode "${SETTINGS[@]}" -D "dfs.namenode.name.dir=file://$DIR/format" \
            -format -nonInteractive >"$DIR/format.log" 2>&1 || give_up format "the NameNode could not format its folder"
        # Another instance may have been quicker.
        mv -T "$DIR/format" "$template" 2>/dev/null || [[ -d $template ]]
    fi
    mkdir -p "$DIR/namenode"
    cp -r "$template/." "$DIR/namenode"
}

# Out of safe mode, with a living DataNode: only then a file can be written.
is_writable() {
    local state
    state=$(http GET "$HDFS_HTTP_PORT" '/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState') || return 1
    [[ $state == *'"FSState" : "Operational"'* && $state == *'"NumLiveDataNodes" : 1'* ]] && datanode_is_connected
}

# A NameNode that was just restarted may count a DataNode that died before it.
datanode_is_connected() {
    [[ $(http GET "$HDFS_DATANODE_HTTP_PORT" '/jmx?qry=Hadoop:service=DataNode,name=DataNodeInfo') == *'ActorState\":\"RUNNING'* ]]
}

up() {
    local daemon=(-XX:TieredStopAtLevel=1 "-Xmx${HDFS_HEAP:-256m}")
    own_instance
    find_jars
    for name in HDFS_PORT HDFS_HTTP_PORT HDFS_DATANODE_PORT HDFS_DATANODE_HTTP_PORT HDFS_DATANODE_IPC_PORT; do port "$name"; done
    set_env HDFS_URL "hdfs://127.0.0.1:$HDFS_PORT"
    set_env HADOOP_CONF_DIR "$CONF"
    write_settings
    if ! is_running namenode; then
        must_be_free "$HDFS_PORT" "$HDFS_HTTP_PORT"
        format
        launch_java namenode "${daemon[@]}" org.apache.hadoop.hdfs.server.namenode.NameNode "${SETTINGS[@]}"
    fi
    if ! is_running datanode; then
        must_be_free "$HDFS_DATANODE_PORT" "$HDFS_DATANODE_HTTP_PORT" "$HDFS_DATANODE_IPC_PORT"
        launch_java datanode "${daemon[@]}" org.apache.hadoop.hdfs.server.datanode.DataNode "${SETTINGS[@]}"
    fi
    # Each is asked while the other is watched: whichever dies is the one whose log is shown.
    wait_until namenode namenode_answers
    wait_until datanode is_writable
    say "up on $(get_env HDFS_URL) after $SECONDS s"
}
namenode_answers() { [[ $(http GET "$HDFS_HTTP_PORT" '/jmx?qry=Hadoop:service=NameNode,name=NameNodeStatus') == *'"State" : "active"'* ]]; }

# put LOCAL... REMOTE, over WebHDFS: it takes milliseconds where Hadoop's own shell takes seconds to start.
put() {
    (($# >= 2)) || usage
    local remote=${!#} file
    HDFS_HTTP_PORT=$(get_env HDFS_HTTP_PORT)
    [[ -n $HDFS_HTTP_PORT ]] || fail "is not up in $DIR"
    (($# == 2)) || remote=${remote%/}/
    for file in "${@:1:$#-1}"; do
        if [[ $remote == */ ]]; then put_file "$file" "$remote${file##*/}"; else put_file "$file" "$remote"; fi
    done
}

put_file() { # LOCAL REMOTE
    local query answer location
    [[ -f $1 && -r $1 ]] || fail "cannot read $1"
    [[ $2 == /* && $2 != *[[:space:]?#%]* ]] || fail "$2 is no absolute path of plain characters"
    query="op=CREATE&overwrite=true&noredirect=true&user.name=$(id -un)"
    answer=$(http PUT "$HDFS_HTTP_PORT" "/webhdfs/v1$2?$query") || fail "the NameNode does not answer"
    # The NameNode says which DataNode takes the bytes: {"Location":"http://127.0.0.1:PORT/PATH"}
    [[ $answer =~ \"Location\":\"http://127.0.0.1:([0-9]+)(/[^\"]*)\" ]] || fail "the NameNode refused $2: $answer"
    location=${BASH_REMATCH[2]}
    answer=$(http PUT "${BASH_REMATCH[1]}" "$location" "$1") || true
    # Before it comes "100 Continue".
    [[ $answer == *"201 Created"* ]] || fail "the DataNode refused $2: $answer"
}

# Hadoop's shell takes its settings from the class path only.
dfs() {
    find_jars
    CLASS_PATH=$CONF:$CLASS_PATH java_tool org.apache.hadoop.fs.FsShell "$@"
}

dfsadmin() {
    find_jars
    CLASS_PATH=$CONF:$CLASS_PATH java_tool org.apache.hadoop.hdfs.tools.DFSAdmin "$@"
}

kill_one() {
    [[ $1 == namenode || $1 == datanode ]] || usage
    end "$1" KILL
}

signal_one() { # NODE SIGNAL
    [[ $1 == namenode || $1 == datanode ]] || usage
    send_signal "$1" "$2"
}

verb=${1:-}
shift || true
case $verb in
    setup) warm namenode datanode ;;
    up) up ;;
    down) with_instance end_all datanode namenode ;;
    kill) with_instance kill_one "${1:-namenode}" ;;
    pause) with_instance signal_one "${1:-namenode}" STOP ;;
    resume) with_instance signal_one "${1:-namenode}" CONT ;;
    status) report namenode datanode ;;
    wipe) with_instance remove_all datanode namenode ;;
    put) put "$@" ;;
    conf) echo "$CONF" ;;
    dfs) dfs "$@" ;;
    dfsadmin) dfsadmin "$@" ;;
    *) usage ;;
esac

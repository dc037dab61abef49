# shellcheck shell=bash
# What every service script shares: one private folder per instance, ports, processes that outlive their caller, jars.
#
#   up ──▶ own_instance ──▶ port ──▶ launch ──▶ wait_until (asks by protocol) ──▶ $ZETA_SERVICE_DIR/env
#   down, kill, wipe ──▶ pid file ──▶ is it still the process we started? ──▶ signal ──▶ wait until it is gone
#
# A pid is never signalled on its number alone: the pid file also holds the start time of the process.
# Nothing here waits for a fixed time.
#
#   ZETA_SERVICE_DIR  folder of this instance: env, logs, pid files, data   (default: $ZETA_CACHE/services/NAME)
#   ZETA_CACHE        what is worth keeping between runs                    (default: ~/.cache/zeta)
#   JAVA_HOME         the JDK, 17 or newer                                  (default: java of PATH)
#
# A script sets SERVICE and then sources this file.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=$(realpath -m "${ZETA_CACHE:-$HOME/.cache/zeta}/services")
DIR=$(realpath -m "${ZETA_SERVICE_DIR:-$CACHE/$SERVICE}")
JAVA=${JAVA_HOME:+$JAVA_HOME/bin/}java

START_SECONDS_MAX=120
STOP_SECONDS_MAX=60
HTTP_SECONDS_MAX=30

say() { echo "$SERVICE: $*" >&2; }
fail() { say "error: $*"; exit 1; }

# The head comment of the calling script is its manual.
usage() {
    sed -n '2,${/^#/!q; s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

# ---------------------------------------------------------------------------------------------------------------------
# The instance

# Takes $DIR for this service and this command. The file `service` marks a folder as ours, so that `wipe` can trust it.
own_instance() {
    mkdir -p "$DIR"
    if [[ ! -f $DIR/service ]]; then
        [[ -z $(ls -A "$DIR") ]] || fail "$DIR is not empty and no service of ours; set ZETA_SERVICE_DIR to a new folder"
        echo "$SERVICE" >"$DIR/service"
    fi
    [[ $(<"$DIR/service") == "$SERVICE" ]] || fail "$DIR belongs to $(<"$DIR/service"); give each service its own ZETA_SERVICE_DIR"
    exec 9>"$DIR/lock"
    flock -w 300 9 || fail "another command is still busy in $DIR"
}

# with_instance COMMAND...: runs it on the instance in $DIR; where there is none, there is nothing to end.
with_instance() {
    [[ -f $DIR/service ]] || return 0
    own_instance
    "$@"
}

# set_env NAME VALUE: what callers read, one shell assignment per line.
set_env() {
    touch "$DIR/env"
    { grep -v "^$1=" "$DIR/env" || true; printf '%s=%q\n' "$1" "$2"; } >"$DIR/env.new"
    mv "$DIR/env.new" "$DIR/env"
}

# Nothing, where it is not set.
get_env() { sed -n "s/^$1=//p" "$DIR/env" 2>/dev/null || true; }

# end_all NAME...: ends them in this order. remove_all NAME...: the same, and removes the folder.
end_all() {
    local name
    for name in "$@"; do end "$name"; done
}
remove_all() {
    end_all "$@"
    rm -rf "$DIR"
    say "removed $DIR"
}

# ---------------------------------------------------------------------------------------------------------------------
# Ports

is_listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# port NAME: sets the variable NAME (and the env file) to the caller's port, else to last time's, else to a free one.
port() {
    local name=$1 chosen=${!1:-}
    chosen=${chosen:-$(get_env "$name")}
    chosen=${chosen:-$(free_port)}
    printf -v "$name" %s "$chosen"
    set_env "$name" "$chosen"
}

# Below the range from which the kernel takes ports of outgoing connections: none of those can sit on it at a restart.
# The file in $CACHE/ports keeps two instances that start at the same moment apart; after a day only listening counts.
free_port() {
    local candidate
    mkdir -p "$CACHE/ports"
    find "$CACHE/ports" -type f -mmin +1440 -delete
    for candidate in $(shuf -i 20000-31999 -n 500); do
        is_listening "$candidate" && continue
        (set -o noclobber; echo "$DIR" >"$CACHE/ports/$candidate") 2>/dev/null || continue
        echo "$candidate"
        return
    done
    fail "found no free port between 20000 and 31999"
}

# must_be_free PORT...: says whose fault it is, before a server's log does so at length.
must_be_free() {
    local number
    for number in "$@"; do
        ! is_listening "$number" || fail "port $number is taken by another process"
    done
}

# ---------------------------------------------------------------------------------------------------------------------
# Processes

# started_at PID: the kernel's start time of a living process; it fails for a dead or an unreaped one.
started_at() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # The name in parentheses may hold blanks; after it, field 1 is the state and field 20 the start time.
    read -r -a stat <<<"${stat##*) }"
    [[ ${stat[0]} != [ZX] ]] && echo "${stat[19]}"
}

# pid_of NAME: the pid, if the process that launch started under this name is still alive.
pid_of() {
    local pid start
    read -r pid start 2>/dev/null <"$DIR/$1.pid" || return 1
    [[ $(started_at "$pid") == "$start" ]] && echo "$pid"
}

is_running() { pid_of "$1" >/dev/null; }

# launch NAME COMMAND...: starts a process in a session of its own, so that it outlives the caller and its terminal.
launch() {
    local name=$1 pid
    shift
    [[ ! -f $DIR/$name.log ]] || mv "$DIR/$name.log" "$DIR/$name.log.old"
    # 9 is the lock of this instance, which the server must not keep.
    setsid "$@" </dev/null >>"$DIR/$name.log" 2>&1 9>&- &
    pid=$!
    echo "$pid $(started_at "$pid" || echo gone)" >"$DIR/$name.pid"
}

# wait_until NAME CHECK...: until CHECK succeeds; with the end of the log when NAME dies or takes too long.
wait_until() {
    local name=$1 end=$((SECONDS + START_SECONDS_MAX))
    shift
    until "$@"; do
        is_running "$name" || give_up "$name" "$name ended while it was starting"
        ((SECONDS < end)) || give_up "$name" "$name did not get ready within $START_SECONDS_MAX s"
        sleep 0.1
    done
}

give_up() { # NAME SENTENCE
    tail -n 25 "$DIR/$1.log" >&2 || true
    fail "$2; above is the end of $DIR/$1.log"
}

# end NAME [SIGNAL]: signals the process (KILL: its children too) and waits until it is gone.
end() {
    local name=$1 signal=${2:-TERM} pid limit=$((SECONDS + STOP_SECONDS_MAX))
    if pid=$(pid_of "$name"); then
        if [[ $signal == KILL ]]; then kill -KILL -- "-$pid"; else kill -s "$signal" "$pid"; fi
        # One that was paused hears it, too.
        kill -s CONT "$pid" 2>/dev/null || true
        while is_running "$name"; do
            if ((SECONDS > limit)); then
                say "$name did not end within $STOP_SECONDS_MAX s; killing it"
                kill -KILL -- "-$pid"
                limit=$((SECONDS + STOP_SECONDS_MAX))
            fi
            sleep 0.05
        done
        say "$name ended (pid $pid, $signal)"
    fi
    rm -f "$DIR/$name.pid"
}

# send_signal NAME SIGNAL: STOP freezes a process with all its connections open, CONT lets it go on.
send_signal() {
    local pid
    pid=$(pid_of "$1") || fail "$1 does not run"
    kill -s "$2" "$pid"
}

# report NAME...: a line for each process; fails when one of them is down.
report() {
    local name pid all_up=0
    for name in "$@"; do
        if pid=$(pid_of "$name"); then
            echo "$name up, pid $pid, $(awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/$pid/status") MiB"
        else
            echo "$name down"
            all_up=1
        fi
    done
    return "$all_up"
}

# http METHOD PORT PATH [FILE]: the whole answer, with its head; FILE is the body. Needs no other program.
http() {
    local file=${4:-/dev/null}
    {
        exec 3<>"/dev/tcp/127.0.0.1/$2"
        printf '%s %s HTTP/1.0\r\nHost: 127.0.0.1:%s\r\nContent-Length: %s\r\n\r\n' "$1" "$3" "$2" "$(stat -L -c %s "$file")" >&3
        cat "$file" >&3
        timeout "$HTTP_SECONDS_MAX" cat <&3
    } 2>/dev/null
}

# ---------------------------------------------------------------------------------------------------------------------
# Java

# Sets JARS, the folder with the jars of jars/$SERVICE.xml, and CLASS_PATH. Maven is needed only the first time.
find_jars() {
    command -v "$JAVA" >/dev/null || fail "needs a JDK, 17 or newer: run tests/services/packages.sh test"
    JARS=$CACHE/jars/$SERVICE-$(cksum <"$HERE/jars/$SERVICE.xml" | cut -d ' ' -f 1)
    [[ -d $JARS ]] || fetch_jars
    # In a fixed order, because a class archive is valid only for the class path that it was made with.
    local LC_ALL=C all
    all=("$JARS"/*.jar)
    CLASS_PATH=$(IFS=:; echo "${all[*]}")
}

fetch_jars() {
    command -v mvn >/dev/null || fail "needs Maven to download its jars: run tests/services/packages.sh test"
    mkdir -p "$CACHE/jars"
    (
        flock 8
        [[ ! -d $JARS ]] || exit 0
        say "downloading jars to $JARS"
        rm -rf "$JARS.part"
        mvn --batch-mode --no-transfer-progress --quiet -Dstyle.color=never --file "$HERE/jars/$SERVICE.xml" \
            org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
            -DincludeScope=runtime -DoutputDirectory="$JARS.part" >&2 </dev/null || fail "Maven could not download the jars"
        # A folder under its final name is always complete.
        mv -T "$JARS.part" "$JARS"
    ) 8>"$CACHE/jars/lock"
}

# The archive of loaded classes that halves the start of the JVM called NAME; it fits one build of one JDK only.
archive_of() { echo "$JARS/$1-$(stat -L -c '%n %s %Y' "$(command -v "$JAVA")" | cksum | cut -d ' ' -f 1).jsa"; }

# launch_java NAME JVM_OPTION... CLASS ARGUMENT...
launch_java() {
    local name=$1 archive
    shift
    archive=$(archive_of "$name")
    local options=(-XX:+UseSerialGC -XX:-UsePerfData -XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true -Djava.net.preferIPv4Stack=true)
    if [[ -n ${WARMING:-} ]]; then
        options+=("-XX:ArchiveClassesAtExit=$archive.part")
    elif [[ -f $archive ]]; then
        options+=("-XX:SharedArchiveFile=$archive")
    fi
    mkdir -p "$DIR/tmp"
    launch "$name" "$JAVA" "${options[@]}" "-Djava.io.tmpdir=$DIR/tmp" "${LOG_OPTIONS[@]}" -Dzeta.log=INFO -cp "$CLASS_PATH" "$@"
}

# java_tool CLASS ARGUMENT...: a command line tool of the service; it prints its own errors and nothing else.
java_tool() {
    "$JAVA" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Xmx256m -Djava.net.preferIPv4Stack=true \
        "${LOG_OPTIONS[@]}" -Dzeta.log=ERROR -cp "$CLASS_PATH" "$@"
}

LOG_OPTIONS=("-Dlog4j.configuration=file:$HERE/logging/log4j.properties" "-Dlog4j2.configurationFile=file:$HERE/logging/log4j2.properties")

# warm NAME...: downloads the jars and, where one is missing, makes the class archives: by one start and stop in a
# folder of its own.
warm() {
    local name scratch missing=
    find_jars
    for name in "$@"; do [[ -f $(archive_of "$name") ]] || missing=yes; done
    [[ -n $missing ]] || { say "set up in $JARS"; return; }
    (
        flock 8
        say "making class archives in $JARS"
        scratch=$(mktemp -d)
        trap 'rm -rf "$scratch"' EXIT
        export WARMING=yes ZETA_SERVICE_DIR=$scratch/$SERVICE
        "$0" up
        "$0" down
        for name in "$@"; do
            # A JVM that is killed, or not able to write one, leaves none: starts are slower then, and that is all.
            [[ ! -f $(archive_of "$name").part ]] || mv "$(archive_of "$name").part" "$(archive_of "$name")"
        done
    ) 8>"$JARS/lock"
    say "set up in $JARS"
}

#!/usr/bin/env bash
# Runs the system's nginx with the configuration of compose/nginx on 127.0.0.1.
#
#   nginx.sh setup   check that nginx is there
#   nginx.sh up      render and test the configuration, start nginx, wait until it answers; writes $ZETA_SERVICE_DIR/env.
#                    With another ZETA_ADDRESS or STATIC_ROOT than before: starts it anew.
#   nginx.sh down    end it cleanly
#   nginx.sh kill    end it with kill -9, workers too
#   nginx.sh status  a line per process; exit code 1 when it is down
#   nginx.sh wipe    end it and remove $ZETA_SERVICE_DIR
#
# env:   NGINX_URL, NGINX_PORT, ZETA_ADDRESS, STATIC_ROOT
# takes: NGINX_PORT (default: a free one), ZETA_ADDRESS (host:port, needed at the first `up`), STATIC_ROOT (web/dist);
#        and what common.sh names

# shellcheck source-path=SCRIPTDIR
SERVICE=nginx
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
REPOSITORY=$(cd "$HERE/../.." && pwd)

# Debian keeps it where only root's PATH looks.
NGINX=$(PATH=$PATH:/usr/sbin command -v nginx || true)
# Where nginx keeps temporary files and a pid file of its own.
RUN=$DIR/run/

render() {
    local template="$REPOSITORY/compose/nginx/default.conf.template" text name
    # shellcheck disable=SC2034 # read by its name below
    local NGINX_LISTEN=127.0.0.1:$NGINX_PORT
    mkdir -p "$DIR/conf.d" "$RUN"
    cp "$REPOSITORY/compose/nginx/nginx.conf" "$DIR/nginx.conf"
    text=$(<"$template")
    # Exactly these names, as nginx has variables of its own.
    for name in NGINX_LISTEN ZETA_ADDRESS STATIC_ROOT; do text=${text//"\${$name}"/"${!name}"}; done
    echo "$text" >"$DIR/conf.d/default.conf"
}

# Whatever the answer: nginx gave it. Behind it Zeta may be down.
nginx_answers() { [[ $(http GET "$NGINX_PORT" /assets/is-nginx-up) == HTTP/1.1\ 404* ]]; }

up() {
    local global='daemon off;' before
    [[ -n $NGINX ]] || fail "nginx is not installed: run tests/services/packages.sh test"
    own_instance
    ZETA_ADDRESS=${ZETA_ADDRESS:-$(get_env ZETA_ADDRESS)}
    STATIC_ROOT=$(realpath -m "${STATIC_ROOT:-$REPOSITORY/web/dist}")
    [[ -n $ZETA_ADDRESS ]] || fail "needs ZETA_ADDRESS, the host:port of the Zeta to stand in front of"
    [[ -f $STATIC_ROOT/index.html ]] || fail "found no index.html in $STATIC_ROOT: run make web, or set STATIC_ROOT"
    port NGINX_PORT
    set_env NGINX_URL "http://127.0.0.1:$NGINX_PORT"
    set_env ZETA_ADDRESS "$ZETA_ADDRESS"
    set_env STATIC_ROOT "$STATIC_ROOT"

    before=$(cat "$DIR/conf.d/default.conf" 2>/dev/null || true)
    render
    [[ $before == "$(<"$DIR/conf.d/default.conf")" ]] || end nginx
    # Workers of root's nginx would change to a user that cannot read a clone in root's home.
    [[ $(id -u) != 0 ]] || global+=' user root;'
    if ! is_running nginx; then
        must_be_free "$NGINX_PORT"
        "$NGINX" -t -q -p "$RUN" -c "$DIR/nginx.conf" -g "$global" >"$DIR/nginx.log" 2>&1 ||
            give_up nginx "nginx does not accept the configuration in compose/nginx"
        launch nginx "$NGINX" -p "$RUN" -c "$DIR/nginx.conf" -g "$global"
    fi
    wait_until nginx nginx_answers
    say "up on $(get_env NGINX_URL) after $SECONDS s, in front of $ZETA_ADDRESS"
}

case ${1:-} in
    setup) [[ -n $NGINX ]] || fail "nginx is not installed: run tests/services/packages.sh test" ;;
    up) up ;;
    down) with_instance end nginx ;;
    kill) with_instance end nginx KILL ;;
    status) report nginx ;;
    wipe) with_instance remove_all nginx ;;
    *) usage ;;
esac

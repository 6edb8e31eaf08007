#!/usr/bin/env bash
# Real i2pd routers for tests, closed off from the world: everything is on 127.0.0.0/8, they know each other and nobody else,
# and their network id is not that of the public network.
set -u

usage() {
    cat <<'END'
Usage: run.sh [--i2pd PROGRAM] [--routers N] [--help]

Runs i2pd on 127.0.0.1, with a SAM bridge and nothing else.

Prints 'SAM <tcp-port> <udp-port>' for each router and then 'READY'. Ends when
its standard input ends, and takes the routers with it; or within a second or
so of the end of a router that nobody told to end. Exits with 77 if there is
no i2pd.

  --i2pd PROGRAM  that of fetch.sh for instance; without it, what is installed
  --routers N     so many, 1 to 8, which make up a network (1)

Lines of standard input are commands. Each is answered by a line 'DONE' or
'FAILED', in their order. N is the number of a router, from 0 on, or 'all':

  kill N          ends it with KILL
  start N         starts it again, on the same ports and with the same data
  stop N          STOP: it stays, and does nothing
  cont N          CONT: it goes on

One router needs sessions with 'inbound.length=0 outbound.length=0
inbound.quantity=1 outbound.quantity=1 i2cp.leaseSetType=1
i2cp.leaseSetEncType=0', which are ready after 20 seconds: there is no other
router to build tunnels through, and i2pd looks whether a session is ready
every 20 seconds. A network needs i2pd 2.56 or later (2.45 routers do not talk
to each other on such addresses) and four routers; sessions with
'inbound.length=1 outbound.length=1' are ready after 3 to 18 seconds.
END
}

# shellcheck source=one.sh
. "$(dirname "${BASH_SOURCE[0]}")/one.sh"

bad_usage() { complain "$@"; usage >&2; exit 2; }

i2pd=
routers=1
while (($#)); do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --i2pd | --routers)
            [[ -n ${2-} ]] || bad_usage "$1 needs a value"
            if [[ $1 == --i2pd ]]; then i2pd=$2; else routers=$2; fi
            shift 2
            ;;
        *) bad_usage "unknown argument '$1'" ;;
    esac
done
[[ $routers =~ ^[1-8]$ ]] || bad_usage "'$routers' is not 1 to 8"

# The system's folders for daemons are not in everybody's PATH.
i2pd=$(PATH=$PATH:/usr/sbin:/usr/local/sbin command -v "${i2pd:-i2pd}") || {
    complain "there is no ${i2pd:-i2pd} (Debian: apt-get install i2pd)"
    exit 77
}

dir=$(mktemp -d "${TMPDIR:-/tmp}/i2psock-i2pd.XXXXXXXX") || die "cannot make a temporary folder"

# each COMMAND...: for every router, as its last argument.
each() {
    local each
    for ((each = 0; each < routers; each++)); do
        "$@" "$each" || return 1
    done
}

cleanup() {
    trap '' HUP INT TERM PIPE
    each kill_router
    rm -rf -- "$dir"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM

# Waits until a router has written down who it is.
is_born() {
    local end=$((SECONDS + 60))
    until [[ -s $dir/$1/router.info && -s $dir/$1/router.keys ]]; do
        is_alive "$1" && ((SECONDS < end)) || return 1
        sleep 0.05
    done
}

end_gently() {
    local i
    kill -TERM "${pid[$1]}" 2>/dev/null
    for ((i = 0; i < 100; i++)); do
        is_alive "$1" || break
        sleep 0.05
    done
    kill_router "$1"
}

# The file under which others keep what router $1 says about itself: by the hash of its identity, in I2P's base64.
name_in_netdb() {
    local info=$dir/$1/router.info hex base64
    # The length of the certificate is at 385, and the certificate ends the identity.
    hex=$(od -An -tx1 -j385 -N2 "$info" | tr -d ' ') && [[ -n $hex ]] || return 1
    hex=$(head -c $((387 + 16#$hex)) "$info" | sha256sum | cut -c 1-64)
    # shellcheck disable=SC2059
    base64=$(printf "$(sed 's/../\\x&/g' <<<"$hex")" | base64 | tr '+/' '-~')
    echo "r${base64:0:1}/routerInfo-$base64.dat"
}

# Tells every router about router $1.
introduce() {
    local name other
    name=$(name_in_netdb "$1") || return 1
    for ((other = 0; other < routers; other++)); do
        if ((other != $1)); then
            mkdir -p "$dir/$other/netDb/${name%/*}" && cp "$dir/$1/router.info" "$dir/$other/netDb/$name" || return 1
        fi
    done
}

start_all() {
    each choose_ports
    if ((routers > 1)); then
        each launch && each is_born && each end_gently && each introduce || return 1
    fi
    each launch && each comes_up
}

started=
for ((attempt = 0; attempt < 5; attempt++)); do
    if start_all; then
        started=yes
        break
    fi
    each kill_router
    ((attempt == 4)) || rm -rf -- "${dir:?}"/*
done
[[ -n $started ]] || { each show_log; die "i2pd does not start"; }

tell_ports() {
    printf 'SAM %d %d\n' "${sam[$1]}" "$((sam[$1] - 1))"
}

each tell_ports && echo READY || exit 1

start_again() {
    [[ -z ${pid[$1]} ]] || return 1
    launch "$1" && comes_up "$1" || { show_log "$1"; return 1; }
}

signal() { # name, router
    is_alive "$2" && kill "-$1" "${pid[$2]}"
}

# obey COMMAND ROUTER
obey() {
    local what
    case $1 in
        kill) what=(kill_router) ;;
        start) what=(start_again) ;;
        stop) what=(signal STOP) ;;
        cont) what=(signal CONT) ;;
        *) return 1 ;;
    esac
    if [[ $2 == all ]]; then
        each "${what[@]}"
    else
        [[ $2 =~ ^[0-7]$ ]] && (($2 < routers)) && "${what[@]}" "$2"
    fi
}

# By itself, for those that were killed have no process.
has_ended() {
    [[ -n ${pid[$1]} ]] && ! is_alive "$1"
}

while :; do
    IFS=' ' read -r -t 1 command which 2>/dev/null
    status=$?
    if ((status == 0)); then
        if obey "$command" "$which"; then echo DONE; else echo FAILED; fi || exit 1
    elif ((status <= 128)); then
        exit 0 # the end of standard input
    fi
    for ((router = 0; router < routers; router++)); do
        ! has_ended "$router" || { show_log "$router"; die "i2pd has ended by itself"; }
    done
done

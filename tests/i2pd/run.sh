#!/usr/bin/env bash
# One real i2pd router for tests, closed off from the world: everything is on 127.0.0.1, it knows no other router and its
# network id is not that of the public network.
set -u

usage() {
    cat <<'END'
Usage: run.sh [--datadir DIR] [--port N] [--help]

Runs Debian's i2pd on 127.0.0.1, with a SAM bridge and nothing else.

Prints 'SAM <tcp-port> <udp-port>', 'PID <process id of the router>' and then
'READY'. Ends when its standard input ends, and takes the router with it; or
within a second or so of the router's own end. Exits with 77 if there is no
i2pd.

  --datadir DIR  keep the router's identity and log in DIR, to start the same
                 router again, after KILL too; without it, in a temporary folder
  --port N       TCP port of the SAM bridge; UDP is N-1

Sessions need 'inbound.length=0 outbound.length=0 inbound.quantity=1
outbound.quantity=1 i2cp.leaseSetType=1 i2cp.leaseSetEncType=0', and are ready
after 20 seconds: there is no other router to build tunnels through, and i2pd
looks whether a session is ready every 20 seconds.
END
}

complain() { printf 'run.sh: %s\n' "$*" >&2; }
die() { complain "$@"; exit 1; }
bad_usage() { complain "$@"; usage >&2; exit 2; }

datadir=
port=
while (($#)); do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --datadir | --port)
            [[ -n ${2-} ]] || bad_usage "$1 needs a value"
            if [[ $1 == --port ]]; then port=$2; else datadir=$2; fi
            shift 2
            ;;
        *) bad_usage "unknown argument '$1'" ;;
    esac
done
if [[ -n $port ]] && ! { [[ $port =~ ^[1-9][0-9]{0,4}$ ]] && ((port >= 2 && port <= 65535)); }; then
    bad_usage "'$port' is no port"
fi

# The system's folders for daemons are not in everybody's PATH.
i2pd=$(PATH=$PATH:/usr/sbin:/usr/local/sbin command -v i2pd) || {
    complain "i2pd is not installed (Debian: apt-get install i2pd)"
    exit 77
}

dir=
temporary=
router=

# While a session is open i2pd does not heed TERM, and without one it takes a second or two over it. That is worth waiting
# for only if something is to be kept.
stop_router() {
    [[ -n $router ]] || return 0
    if [[ -z $temporary ]]; then
        kill -TERM "$router" 2>/dev/null
        for ((i = 0; i < 100; i++)); do
            kill -0 "$router" 2>/dev/null || break
            sleep 0.05
        done
    fi
    kill -KILL "$router" 2>/dev/null
    wait "$router" 2>/dev/null
    router=
}

cleanup() {
    trap '' HUP INT TERM PIPE
    stop_router
    [[ -z $temporary ]] || rm -rf -- "$temporary"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM

if [[ -n $datadir ]]; then
    mkdir -p -- "$datadir" || exit 1
    dir=$(cd -- "$datadir" && pwd) || exit 1
else
    temporary=$(mktemp -d "${TMPDIR:-/tmp}/i2psock-i2pd.XXXXXXXX") || die "cannot make a temporary folder"
    dir=$temporary
fi
log=$dir/i2pd.log

# Whether nobody listens on TCP port $1. (Connections that are closing are in nobody's way.)
tcp_free() {
    local hex
    printf -v hex ':%04X' "$1"
    ! cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4 == "0A" { print $2 }' | grep -q "$hex\$"
}

# Whether nobody has bound UDP port $1. (i2pd would share it without a word.)
udp_free() {
    local hex
    printf -v hex ':%04X' "$1"
    ! cat /proc/net/udp /proc/net/udp6 2>/dev/null | awk '{ print $2 }' | grep -q "$hex\$"
}

# Below the ports that Linux gives to clients, so that nobody gets one by chance.
random_port() { echo $((16384 + (RANDOM << 15 | RANDOM) % 16000)); }

# Prints a port that is free for both of the transports, which share it.
transport_port() {
    local p
    for ((n = 0; n < 100; n++)); do
        p=$(random_port)
        if tcp_free "$p" && udp_free "$p"; then
            echo "$p"
            return
        fi
    done
    return 1
}

# Prints a port whose TCP side and whose predecessor's UDP side are free.
sam_port() {
    local p
    for ((n = 0; n < 400; n++)); do
        p=${port:-$(random_port)}
        if tcp_free "$p" && udp_free $((p - 1)); then
            echo "$p"
            return
        fi
        [[ -z $port ]] || sleep 0.05 # perhaps the last user is just going
    done
    return 1
}

write_conf() { # SAM port, transport port
    cat <<END
loglevel = warn
daemon = false
floodfill = true
# Not 2, the public network.
netid = 99
# These two do nothing on the command line.
reservedrange = false
nat = false
host = 127.0.0.1
address4 = 127.0.0.1
port = $2
ipv4 = true
ipv6 = false
[http]
enabled = false
[httpproxy]
enabled = false
[socksproxy]
enabled = false
[bob]
enabled = false
[i2cp]
enabled = false
[i2pcontrol]
enabled = false
[upnp]
enabled = false
[nettime]
enabled = false
frompeers = false
[reseed]
verify = false
threshold = 0
urls =
yggurls =
[addressbook]
defaulturl =
subscriptions =
[sam]
enabled = true
address = 127.0.0.1
port = $1
END
}

# In a process of its own, because a refused connection is an error bash may exit on.
says_hello() { # port
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
        printf 'HELLO VERSION MIN=3.0 MAX=3.1\n' >&3
        IFS= read -r -t 10 reply <&3 && [[ $reply == 'HELLO REPLY RESULT=OK'* ]]
    ) 2>/dev/null
}

# Whether it is our router that listens on TCP port $1.
is_ours() {
    local hex inode
    printf -v hex ':%04X' "$1"
    inode=$(awk -v port="$hex\$" '$2 ~ port && $4 == "0A" { print $10 }' /proc/net/tcp)
    [[ -n $inode ]] && readlink "/proc/$router/fd/"* | grep -qF "socket:[$inode]"
}

# Starts i2pd with the SAM port $1; fails if it does not get its ports.
start_router() {
    local transport
    transport=$(transport_port) || die "no free port"
    if ! write_conf "$1" "$transport" >"$dir/i2pd.conf" || ! : >"$log"; then
        die "cannot write to the folder '$dir'"
    fi
    (
        # It logs an error for ever when it receives too long a line. Better that it dies of it (in KiB).
        ulimit -f 102400
        # Without this shell nobody would stop it.
        set --
        if command -v setpriv >/dev/null; then set -- setpriv --pdeathsig KILL; fi
        exec "$@" "$i2pd" --conf="$dir/i2pd.conf" --datadir="$dir" --log=file --logfile="$log" \
            --tunconf="$dir/no-tunnels" --tunnelsdir="$dir/no-tunnels.d" --certsdir="$dir/no-certificates" \
            >>"$dir/i2pd.out" 2>&1 </dev/null
    ) &
    router=$!
    local end=$((SECONDS + 90))
    while ((SECONDS < end)); do
        kill -0 "$router" 2>/dev/null || return 1
        # It goes on running without a port it could not have.
        ! grep -q 'Exception in SAM bridge\|Failed to bind' "$log" || return 1
        if says_hello "$1"; then
            is_ours "$1"
            return
        fi
        sleep 0.05
    done
    return 1
}

show_log() {
    complain "the end of its log:"
    tail -n 20 "$dir/i2pd.out" "$log" >&2
}

started=
for ((attempt = 0; attempt < 5; attempt++)); do
    if ! sam=$(sam_port); then
        [[ -z $port ]] || die "TCP port $port or UDP port $((port - 1)) is in use"
        die "no free port"
    fi
    if start_router "$sam"; then
        started=yes
        break
    fi
    stop_router
done
[[ -n $started ]] || { show_log; die "i2pd does not start"; }

printf 'SAM %d %d\nPID %d\nREADY\n' "$sam" "$((sam - 1))" "$router" || exit 1

# Until standard input ends.
while :; do
    IFS= read -r -t 1 _ 2>/dev/null
    status=$?
    ((status == 0 || status > 128)) || exit 0
    kill -0 "$router" 2>/dev/null || { show_log; die "i2pd has ended by itself"; }
done

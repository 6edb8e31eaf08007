# For run.sh, to be sourced: one i2pd router in a folder, from its configuration to its end.
#
# $i2pd is the program, $dir has a folder for each router, by its number, and $routers of them make up the network: if there is
# only one, it has to do without tunnels.

sam=()       # TCP port of each router's SAM bridge; UDP is one less
transport=() # port of its transports
pid=()       # its process, or nothing

complain() { printf 'run.sh: %s\n' "$*" >&2; }
die() { complain "$@"; exit 1; }

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

# Prints a port P that is free: for UDP it is P - $1 that has to be.
free_port() {
    local p n
    for ((n = 0; n < 400; n++)); do
        p=$(random_port)
        if tcp_free "$p" && udp_free $((p - $1)); then
            echo "$p"
            return
        fi
    done
    return 1
}

write_conf() { # router
    local floodfill=false
    # Two of them keep the lease sets of a network; one router alone has nobody else to ask.
    (($1 > 1)) || floodfill=true
    cat <<END
loglevel = warn
daemon = false
floodfill = $floodfill
# Not 2, the public network.
netid = 99
# These two do nothing on the command line.
reservedrange = false
nat = false
host = 127.0.0.$(($1 + 1))
address4 = 127.0.0.$(($1 + 1))
port = ${transport[$1]}
ipv4 = true
ipv6 = false
$( ((routers == 1)) || echo 'bandwidth = X')
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
port = ${sam[$1]}
END
    ((routers > 1)) || return 0
    cat <<END
[ntcp2]
enabled = true
published = true
[ssu2]
enabled = true
published = true
[exploratory]
inbound.length = 1
outbound.length = 1
[persist]
profiles = false
END
}

# choose_ports ROUTER: new ones, and what it is to be told.
choose_ports() {
    if ! sam[$1]=$(free_port 1) || ! transport[$1]=$(free_port 0); then
        die "no free port"
    fi
    if ! mkdir -p "$dir/$1" || ! write_conf "$1" >"$dir/$1/i2pd.conf"; then
        die "cannot write to the folder '$dir'"
    fi
}

launch() { # router
    local own=$dir/$1
    : >"$own/i2pd.log" || die "cannot write to the folder '$own'"
    (
        # It logs an error for ever when it receives too long a line. Better that it dies of it (in KiB).
        ulimit -f 102400
        # Without this shell nobody would stop it.
        set --
        if command -v setpriv >/dev/null; then set -- setpriv --pdeathsig KILL; fi
        # In a group of its own: where one member is stopped, the kernel may send HUP to all of a group's when another one ends.
        if command -v setsid >/dev/null; then set -- setsid "$@"; fi
        exec "$@" "$i2pd" --conf="$own/i2pd.conf" --datadir="$own" --log=file --logfile="$own/i2pd.log" \
            --tunconf="$own/no-tunnels" --tunnelsdir="$own/no-tunnels.d" --certsdir="$own/no-certificates" \
            >>"$own/i2pd.out" 2>&1 </dev/null
    ) &
    pid[$1]=$!
}

is_alive() { # router
    [[ -n ${pid[$1]} ]] && kill -0 "${pid[$1]}" 2>/dev/null
}

# In a process of its own, because a refused connection is an error bash may exit on.
says_hello() { # port
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
        printf 'HELLO VERSION MIN=3.0 MAX=3.1\n' >&3
        IFS= read -r -t 10 reply <&3 && [[ $reply == 'HELLO REPLY RESULT=OK'* ]]
    ) 2>/dev/null
}

# Whether it is our router that listens on its SAM port.
is_ours() { # router
    local hex inode
    printf -v hex ':%04X' "${sam[$1]}"
    inode=$(awk -v port="$hex\$" '$2 ~ port && $4 == "0A" { print $10 }' /proc/net/tcp)
    [[ -n $inode ]] && readlink "/proc/${pid[$1]}/fd/"* | grep -qF "socket:[$inode]"
}

# Waits until a router that was launched answers; fails if it does not get its ports.
comes_up() { # router
    local end=$((SECONDS + 90))
    while ((SECONDS < end)); do
        is_alive "$1" || return 1
        # It goes on running without a port it could not have.
        ! grep -q 'Exception in SAM bridge\|Failed to bind' "$dir/$1/i2pd.log" || return 1
        if says_hello "${sam[$1]}"; then
            is_ours "$1"
            return
        fi
        sleep 0.05
    done
    return 1
}

# Ends a router without a warning, whatever state it is in.
kill_router() {
    [[ -n ${pid[$1]-} ]] || return 0
    kill -KILL "${pid[$1]}" 2>/dev/null
    wait "${pid[$1]}" 2>/dev/null
    pid[$1]=
}

show_log() { # router
    complain "the end of the log of router $1:"
    tail -n 20 "$dir/$1/i2pd.out" "$dir/$1/i2pd.log" >&2
}

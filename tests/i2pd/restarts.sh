#!/usr/bin/env bash
# A server with a name is to be reachable: when it ends and is started again, when it loses its connection to the router, when
# the router stops for a while or is killed. And whoever it says it is ready for must reach it, also some time later.
#
# usage: restarts.sh [--rounds N] i2pd|i2pd-net   (the latter is a network of the i2pd in the folder $I2PD)
#
# After each event clients are started that have never heard of the server, until one has its answer. The seconds that takes
# are shown in a table.
#
# RESTART_PAUSE=SECONDS leaves the server's keys alone for so long before they come back, so that the router has forgotten them:
# for telling what a failure is about.
set -u

# shellcheck source=../steps.sh
. "$(dirname "$0")/../steps.sh"
# shellcheck source=../examples/programs.sh
. "$root/tests/examples/programs.sh"

rounds=1
if [ "${1-}" = --rounds ]; then
    rounds=${2-}
    shift 2
fi
kind=${1-}
# In milliseconds: how long the library leaves keys alone that the router may still have; how long tunnels take; and for the rest.
# (A router alone does not let a lease set replace one that is less than a minute older: age.)
gap=6500 rest=10000 age=0
case $kind in
i2pd) tunnels=20000 age=80000 ;;
i2pd-net) tunnels=18000 ;;
*)
    echo "usage: restarts.sh [--rounds N] i2pd|i2pd-net" >&2
    exit 2
    ;;
esac
called=$(called "$kind")
pause=${RESTART_PAUSE:-0}
table=$folder/table
: >"$table"

now() {
    echo $((${EPOCHREALTIME/./} / 1000))
}

# beside SCRIPT ARGUMENT...: one of the Python scripts here, in the background; its port goes to $port.
beside() {
    local script=$1
    shift
    # What is in the background has no other input unless it is said.
    python3 "$root/tests/i2pd/$script" "$@" <&0 >"$script.out" 2>"$script.err" &
    wait_until 60 has_line '^PORT ' "$script.out" || { cat "$script.err"; return 1; }
    port=$(sed -n 's/^PORT //p' "$script.out")
}

# start_server server|tunnel SAM: with this check's keys; $server is its process. server talks with one at a time; a tunnel with
# everybody, and its answers come from port $target.
start_server() {
    : >server.out
    case $1 in
    server) set -- server --name server --sam "$2" ;;
    tunnel) set -- tunnel server server "127.0.0.1:$target" --sam "$2" ;;
    esac
    "$bin/$1" "${@:2}" --keys "$PWD/keys" "${settings[@]}" >server.out 2>>server.err &
    server=$!
}

server_is_up() {
    wait_until 120 has_line '^Server address: ' server.out && address=$(address_in server.out)
}

# reached SINCE LIMIT [FIRST]: until a client that is started FIRST milliseconds after SINCE, or later, has the server's answer;
# $took is then the time since SINCE.
# A client comes every three seconds: it has to wait for its own tunnels first, and if it comes a moment too early it may take a
# minute until it knows that it has failed.
reached() {
    local since=$1 end=$(($1 + $2)) next=$(($1 + ${3:-0})) clients=() i out
    out=$(mktemp -d "$PWD/clients.XXXXXXXX") || return 1
    took=
    while [ -z "$took" ] && [ "$(now)" -lt "$end" ] && ! router_ended; do
        if [ "$(now)" -ge "$next" ]; then
            timeout 90 "$bin/client" --retries 20 --sam "$sam_b" "${settings[@]}" "$address" >"$out/${#clients[@]}" \
                2>"$out/${#clients[@]}.err" &
            clients+=($!)
            next=$(($(now) + 3000))
        fi
        if grep -qsx 'Answer: Hello, how are you?' "$out"/*[0-9]; then
            took=$(($(now) - since))
        else
            sleep 0.1
        fi
    done
    # Those that are connected may finish: the server would wait for the rest of what they have to say.
    for i in "${!clients[@]}"; do
        has_line '^Reply' "$out/$i" || end_process "${clients[i]}"
    done
    [ -n "$took" ] || { tail -n 2 "$out"/*; return 1; }
}

seconds() {
    echo "$(($1 / 1000)).$(($1 / 100 % 10))"
}

# recovers EVENT SINCE [MORE]: what is the same after each event. Time counts from SINCE, when the server, or the router, is there
# again; MORE is what the router needs for itself.
recovers() {
    local limit=$((gap + tunnels + rest + ${3:-0})) first result=0
    # None of them may connect in the first five seconds, while i2pd still has what has ended: 2.59 crashes when somebody does. Three
    # more it takes them to get there.
    if reached "$2" "$limit" 3500; then
        first="$(seconds "$took") s"
    else
        first='never' result=1
        echo "nobody reaches it within $(seconds "$limit") s"
    fi
    # A router that had not forgotten the keys yet, and does so now, says nothing of it.
    sleep 20
    # Nothing to be quick about: only who is dead is not reached at all.
    if ! reached "$(now)" 90000; then
        first+=', and dead 20 s later' result=1
        echo "nobody reaches it 20 s later"
    fi
    echo "$called|$1|$first" >>"$table"
    [ "$result" = 0 ] || cat server.out server.err router/router.err
    return "$result"
}

# Every check begins with a router and a folder of its own, and with a server that somebody has reached: begins server|tunnel SAM
begins() {
    local since
    since=$(now)
    start_server "$@"
    server_is_up && reached "$(now)" 120000 || { cat server.err; return 1; }
    while [ "$(($(now) - since))" -lt "$age" ]; do
        sleep 1
    done
}

own_router() {
    own_folder && start_own_router "$kind"
}

# With a way to the bridge that can be cut: begins_with_proxy server|tunnel
begins_with_proxy() {
    mkfifo proxy.in || return 1
    exec 7<>proxy.in
    beside proxy.py "$sam_a" <proxy.in || return 1
    begins "$1" "127.0.0.1:$port"
}

cut() {
    local since
    echo "cut $pause" >&7
    wait_until 60 has_line '^CUT ' proxy.py.out || return 1
    since=$(($(now) + pause * 1000))
    has_line '^CUT 1$' proxy.py.out || { echo "that was no control connection"; return 1; }
    recovers "$1" "$since"
}

server_ends() { # event, signal
    local since
    own_router && begins server "$sam_a" || return 1
    kill "-$2" "$server"
    # Of which bash makes a note.
    wait "$server" 2>/dev/null
    sleep "$pause"
    since=$(now)
    start_server server "$sam_a"
    recovers "$1" "$since"
}

connection_is_cut() {
    own_router && begins_with_proxy server && cut "$1"
}

# Also while somebody is connected who has said something, and then nothing more.
connection_is_cut_under_a_stream() {
    local try
    own_router && beside answer.py || return 1
    target=$port
    begins_with_proxy tunnel && mkfifo silent && exec 8<>silent || return 1
    for try in 1 2 3 4 5; do
        echo stay >&8
        "$bin/i2pcat" --sam "$sam_b" "${settings[@]}" "$address" <silent >silent.out 2>silent.err &
        ! wait_until 60 has_line '^staying' silent.out || break
        end_process "$!"
        [ "$try" != 5 ] || { cat silent.err; return 1; }
    done
    cut "$1"
}

router_stops() {
    local since
    own_router && begins server "$sam_a" || return 1
    i2pd_tell stop 0 || return 1
    sleep 100
    since=$(now)
    i2pd_tell cont 0 || return 1
    # The others have given it up, and its tunnels.
    recovers "$1" "$since" 60000
}

router_is_killed() {
    local since
    own_router && begins server "$sam_a" || return 1
    i2pd_tell kill 0 && i2pd_tell start 0 || return 1
    since=$(now)
    # It has to find the others first.
    recovers "$1" "$since" 15000
}

# one EVENT COMMAND...
one() {
    check "$called: $1" despite_crashes "$@"
}

# A router that crashes by itself says nothing about us. It may not do so every time.
despite_crashes() {
    local event=$1 command=$2 try
    shift 2
    for try in 1 2 3; do
        ("$command" "$event" "$@") && return 0
        grep -qs 'has ended by itself' "$folder"/own.*/router/router.err || return 1
        echo "$called|$event|(the router has crashed)" >>"$table"
        rm -rf "$folder"/own.*
    done
    return 1
}

# They mostly wait.
one_round() {
    aside one 'the router stops for 100 s' router_stops
    aside one 'the router is killed' router_is_killed
    aside one 'the server ends' server_ends TERM
    aside one 'the server is killed' server_ends KILL
    aside one 'its connection is cut' connection_is_cut
    aside one 'its connection is cut under a stream' connection_is_cut_under_a_stream
    join
}

for ((round = 0; round < rounds; round++)); do
    one_round
done
echo
sort -s -t '|' -k 2,2 "$table" | awk -F '|' '{ printf "    %-26s %-40s %s\n", $1, $2, $3 }'
finish

#!/usr/bin/env bash
# Measures, and compares with programs written by hand in C that do the same in the same run. Prints figures; fails when
# something does not work, never because it is slow. usage: run.sh [relay|client]...   (`make bench`)
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=../router.sh
. "$root/tests/router.sh"

bin=$root/target/bench
tunnel=$root/target/examples-c/tunnel
rounds=${BENCH_ROUNDS:-5}
running=()
scratch

end_running() {
    local process
    exec 8>&-
    for process in ${running[@]+"${running[@]}"}; do
        end_process "$process"
    done
}
at_end end_running

fail() {
    echo "bench: $*" >&2
    tail -n 5 "$folder"/*.err >&2
    exit 1
}

# after WORD FILE: what stands behind that word at the beginning of a line.
after() {
    sed -n "s/^$1 *//p" "$2" | head -n 1
}

# start NAME READY PROGRAM ARGUMENT...: in the background, until it has printed a line that begins with READY; its process is
# $started then.
start() {
    local name=$1 ready=$2
    shift 2
    "$@" <&0 >"$folder/$name.out" 2>"$folder/$name.err" &
    started=$!
    running+=("$started")
    wait_until 60 has_line "^$ready" "$folder/$name.out" || fail "$name does not start"
}

# Nanoseconds of processor time that a process has had.
processor_time() {
    cat /proc/"$1"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

# Where there are two processors and taskset, tunnels have one and who uses them the other: otherwise it is chance who pays for
# what the system does for both.
apart=() aside=()
if taskset -c 0 true 2>/dev/null && taskset -c 1 true 2>/dev/null; then
    apart=(taskset -c 1) aside=(taskset -c 0)
fi

# A figure of one round: note WHAT WHOSE NUMBER.
note() {
    echo "$1 $2 $3" >>"$folder/figures"
}

median() {
    awk -v what="$1" -v whose="$2" '$1 == what && $2 == whose { print $3 }' "$folder/figures" | sort -g |
        awk '{ value[NR] = $1 } END { print (value[int((NR + 1) / 2)] + value[int(NR / 2) + 1]) / 2 }'
}

# row WHAT UNIT SENSE TITLE: both medians, and how good ours is, which is above 1 when ours is better. SENSE: more or less of
# it is good.
row() {
    awk -v ours="$(median "$1" ours)" -v hand="$(median "$1" hand)" -v unit="$2" -v sense="$3" -v title="$4" 'BEGIN {
        ratio = sense == "more" ? ours / hand : hand / ours
        printf "| %-58s | %9.*f | %9.*f | %-8s | %.2f |\n", title, ours < 100 ? 2 : 0, ours, hand < 100 ? 2 : 0, hand, unit, ratio
    }'
}

heading() {
    printf '\n| %-58s | %9s | %9s | %-8s | %-4s |\n|---|--:|--:|---|--:|\n' "$1" ours 'by hand' '' 'as good as'
}

# measure WHAT WHOSE PORT CONNECTIONS THERE BACK PROCESS...: bytes per second through the relays and processor time of each GiB.
measure() {
    local what=$1 whose=$2 begin=0 end=0 seconds process amount=$(($5 + $6))
    for process in "${@:7}"; do
        begin=$((begin + $(processor_time "$process")))
    done
    seconds=$(${aside[@]+"${aside[@]}"} "$bin/load" "$3" "$4" "$5" "$6" 2>"$folder/load.err") || fail "load $what $whose"
    for process in "${@:7}"; do
        end=$((end + $(processor_time "$process")))
    done
    note "$what-speed" "$whose" "$(awk -v a="$amount" -v s="$seconds" 'BEGIN { print a / s }')"
    note "$what-time" "$whose" "$(awk -v a="$amount" -v t=$((end - begin)) 'BEGIN { print t / 1e6 * 1024 / a }')"
}

start_end() {
    local generated
    # Keys from the bridge, so that they are real ones.
    exec 9<>"/dev/tcp/127.0.0.1/${sam_a##*:}" || fail "the bridge"
    printf 'HELLO VERSION MIN=3.1 MAX=3.3\nDEST GENERATE SIGNATURE_TYPE=7\n' >&9
    read -r -u 9 _ && read -r -u 9 generated || fail "no keys"
    exec 9>&-
    mkfifo "$folder/end.in" && exec 8<>"$folder/end.in" || fail "mkfifo"
    destination=$(sed 's/.* PUB=\([^ ]*\).*/\1/' <<<"$generated")
    start end SAM "$bin/end" "$(sed 's/.* PRIV=\([^ ]*\).*/\1/' <<<"$generated")" "$destination" <"$folder/end.in"
    target=$(after TARGET "$folder/end.out")
    cheap=$(after SAM "$folder/end.out")
    udp=$(after UDP "$folder/end.out")
}

# Neither is always the first.
turns=(hand ours)
take_turns() {
    turns=("${turns[1]}" "${turns[0]}")
}

# Whether there is strace, and what it wants to do is allowed here.
can_trace() {
    strace -f -c -o /dev/null true 2>/dev/null
}

# relay_calls WHOSE READY PROGRAM ARGUMENT...: what a client tunnel asks the system for to carry 512 MiB and bring back as much.
relay_calls() {
    local whose=$1 ready=$2 process
    shift 2
    start "counted-$whose" "$ready" strace -f -c -o "$folder/strace-$whose" "$@"
    process=$started
    "$bin/load" "$(sed -n 's/^\(PORT \|Listening on .*:\)//p' "$folder/counted-$whose.out")" 8 512 512 >"$folder/load.out" \
        2>"$folder/load.err" || fail "load counted-$whose"
    # strace ends with it.
    kill "$(pgrep -P "$process")" && wait "$process"
    note relay-calls "$whose" \
        "$(awk '$NF ~ /^(splice|epoll_)/ { sum += $4 } END { print sum / 1024 }' "$folder/strace-$whose")"
}

has_descriptors() {
    [ "$(find "/proc/$1/fd" -mindepth 1 | wc -l)" -ge "$2" ]
}

# idle_connections PROCESS PORT: "bytes descriptors" that each of 100 connections takes in the process while nothing comes. Each
# has been used once.
idle_connections() {
    local fds memory i fd open=()
    fds=$(find "/proc/$1/fd" -mindepth 1 | wc -l) memory=$(awk '/^VmRSS/ { print $2 }' "/proc/$1/status")
    for ((i = 0; i < 100; i++)); do
        exec {fd}<>"/dev/tcp/127.0.0.1/$2" || return 1
        open+=("$fd")
        # A byte is wanted.
        printf '\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0' >&"$fd" && timeout 20 head -c 1 <&"$fd" >/dev/null || return 1
    done
    wait_until 20 has_descriptors "$1" $((fds + 200)) || return 1
    echo "$((($(awk '/^VmRSS/ { print $2 }' "/proc/$1/status") - memory) * 1024 / 100))" \
        "$((($(find "/proc/$1/fd" -mindepth 1 | wc -l) - fds + 50) / 100))"
    for fd in "${open[@]}"; do
        exec {fd}>&-
    done
}

compare_relays() {
    local room round whose step idle_ours idle_hand
    local -A process=() port=()
    # Over the bridge that costs next to nothing.
    for room in 131072 1048576; do
        start "ours-$room" Listening ${apart[@]+"${apart[@]}"} "$tunnel" client --sam "127.0.0.1:$cheap" --set "buffer_size=$room" 0 "$destination"
        process[ours-$room]=$started port[ours-$room]=$(sed -n 's/^Listening on .*://p' "$folder/ours-$room.out")
        start "hand-$room" PORT ${apart[@]+"${apart[@]}"} "$bin/relay" client "$cheap" "$destination" "$room"
        process[hand-$room]=$started port[hand-$room]=$(after PORT "$folder/hand-$room.out")
    done
    # Over the loopback bridge, from end to end.
    start ours-server 'Server address: ' "$tunnel" server --sam "$sam_a" - "$target"
    process[ours-server]=$started
    start ours-client Listening "$tunnel" client --sam "$sam_a" 0 "$(after 'Server address:' "$folder/ours-server.out")"
    process[ours-client]=$started port[ours-client]=$(sed -n 's/^Listening on .*://p' "$folder/ours-client.out")
    start hand-server ADDRESS "$bin/relay" server "${sam_a##*:}" "$target" 131072
    process[hand-server]=$started
    start hand-client PORT "$bin/relay" client "${sam_a##*:}" "$(after ADDRESS "$folder/hand-server.out")" 131072
    process[hand-client]=$started port[hand-client]=$(after PORT "$folder/hand-client.out")
    idle_ours=$(idle_connections "${process[ours-131072]}" "${port[ours-131072]}") || fail "idle connections"
    idle_hand=$(idle_connections "${process[hand-131072]}" "${port[hand-131072]}") || fail "idle connections by hand"
    for ((round = 0; round < rounds; round++)); do
        take_turns
        for room in 131072 1048576; do
            for step in '1 1024 0' '1 0 1024' '8 512 512'; do
                for whose in "${turns[@]}"; do
                    # shellcheck disable=SC2086
                    measure "$room-${step// /-}" "$whose" "${port[$whose-$room]}" $step "${process[$whose-$room]}"
                done
            done
        done
        for step in '1 256 0' '8 128 128'; do
            for whose in "${turns[@]}"; do
                # shellcheck disable=SC2086
                measure "far-${step// /-}" "$whose" "${port[$whose-client]}" $step "${process[$whose-server]}" \
                    "${process[$whose-client]}"
            done
        done
    done
    for room in 131072 1048576; do
        heading "Tunnel, buffer_size=$room, to a bridge that costs nothing"
        row "$room-1-1024-0-speed" MiB/s more "1 GiB to the router, one connection"
        row "$room-1-1024-0-time" ms/GiB less "  processor time of the tunnel"
        row "$room-1-0-1024-speed" MiB/s more "1 GiB from the router, one connection"
        row "$room-1-0-1024-time" ms/GiB less "  processor time of the tunnel"
        row "$room-8-512-512-speed" MiB/s more "512 MiB to it and then from it, 8 connections"
        row "$room-8-512-512-time" ms/GiB less "  processor time of the tunnel"
        if [ "$room" = 131072 ] && can_trace; then
            relay_calls ours Listening "$tunnel" client --sam "127.0.0.1:$cheap" 0 "$destination"
            relay_calls hand PORT "$bin/relay" client "$cheap" "$destination" 131072
            row relay-calls 1/MiB less "  system calls"
        fi
    done
    printf '\nAn idle connection of a tunnel, in bytes and descriptors: %s; by hand: %s.\n' "$idle_ours" "$idle_hand"
    heading "Tunnel client and server, over the loopback bridge"
    row far-1-256-0-speed MiB/s more "256 MiB, one connection"
    row far-1-256-0-time ms/GiB less "  processor time of both tunnels"
    row far-8-128-128-speed MiB/s more "128 MiB there and then back, 8 connections"
    row far-8-128-128-time ms/GiB less "  processor time of both tunnels"
}

# calls WHOSE WHAT COUNT: does it; its line is in $folder/calls.out.
calls() {
    local who=hand
    [ "$1" = hand ] || who=lib
    ${under[@]+"${under[@]}"} "$bin/calls" "$who" "$2" "$cheap" "$udp" "$3" >"$folder/calls.out" 2>"$folder/calls.err" ||
        fail "calls $*"
}

# value WORD: the number behind it in what calls has printed.
value() {
    sed -n "s/.*\\b$1 \\(-\\{0,1\\}[0-9.]*\\).*/\\1/p" "$folder/calls.out"
}

# All system calls that strace has counted.
system_calls() {
    awk '$1 + 0 == $1 && $NF != "total" { sum += $4 } END { print sum + 0 }' "$folder/strace"
}

# count_calls WHAT COUNT TITLE: what each of COUNT times costs, setting up left out.
count_calls() {
    local whose all before
    local -A calls=() heap=() commands=()
    for whose in ours hand; do
        calls "$whose" "$1" "$2"
        heap[$whose]=$(value heap) commands[$whose]=$(value commands)
        calls[$whose]=0
        if [ -n "$strace" ]; then
            under=(strace -f -c -o "$folder/strace")
            calls "$whose" "$1" 0
            before=$(system_calls)
            calls "$whose" "$1" "$2"
            all=$(system_calls)
            under=()
            calls[$whose]=$((all - before - $(value own)))
        fi
    done
    awk -v n="$2" -v title="$3" -v a="${calls[ours]}" -v b="${calls[hand]}" -v c="${heap[ours]}" -v d="${heap[hand]}" \
        -v e="${commands[ours]}" -v f="${commands[hand]}" 'BEGIN {
        printf "| %-42s | %8.2f | %8.2f | %8.2f | %8.2f | %8.2f | %8.2f |\n", title, a / n, b / n, c / n, d / n, e / n, f / n
    }'
}

# What each idle stream keeps.
idle_streams() {
    local whose
    local -A bytes=() fds=()
    for whose in ours hand; do
        calls "$whose" idle 400
        bytes[$whose]=$(($(value memory) / 400)) fds[$whose]=$(awk -v n="$(value descriptors)" 'BEGIN { print n / 400 }')
    done
    printf '\nAn idle stream: %s bytes and %s descriptors, by hand %s and %s.\n' "${bytes[ours]}" "${fds[ours]}" \
        "${bytes[hand]}" "${fds[hand]}"
}

# time_calls WHAT COUNT: seconds and processor time of all of them.
time_calls() {
    local whose
    for whose in "${turns[@]}"; do
        calls "$whose" "$1" "$2"
        note "$1-seconds" "$whose" "$(awk -v s="$(value seconds)" 'BEGIN { print s * 1000 }')"
        note "$1-processor" "$whose" "$(awk -v s="$(value processor)" 'BEGIN { print s * 1000 }')"
    done
}

compare_clients() {
    local round what
    strace=
    if can_trace; then
        strace=1
    else
        echo 'SKIP: strace is not installed, or not allowed to trace: system calls are not counted, and shown as 0'
    fi
    printf '\n| %-42s | %8s | %8s | %8s | %8s | %8s | %8s |\n|---|--:|--:|--:|--:|--:|--:|\n' 'What each of these costs' \
        syscalls 'by hand' heap 'by hand' commands 'by hand'
    count_calls open 20 'open controller and destination'
    count_calls connect 100 'connect, close'
    count_calls accept 100 'accept, close'
    count_calls send 1000 'send 1 KiB'
    count_calls recv 1000 'receive 1 KiB'
    count_calls dgram-send 1280 'send a datagram'
    count_calls dgram-recv 1280 'receive a datagram'
    count_calls dgram-send-many 12800 'send a datagram, 64 at once (hand: 16)'
    count_calls dgram-recv-many 12800 'receive a datagram, 64 at once (hand: 16)'
    idle_streams
    for ((round = 0; round < rounds; round++)); do
        take_turns
        time_calls connect 500
        time_calls echo 100
        time_calls dgram-send-many 20032
        time_calls dgram-recv-many 20032
    done
    heading "The library, at a bridge that costs next to nothing"
    for what in 'connect 500 times connect, close' 'echo 100 times connect, 1 MiB there and back, close' \
        'dgram-send-many 20032 datagrams sent' 'dgram-recv-many 20032 datagrams received'; do
        row "${what%% *}-seconds" ms less "${what#* }"
        row "${what%% *}-processor" ms less '  processor time'
    done
}

mkdir "$folder/bridge"
BRIDGE_OPTIONS='' router_start bridge "$folder/bridge" || fail "the bridge does not start"
start_end
[ $# -gt 0 ] || set -- relay client
for part; do
    case $part in
    relay) compare_relays ;;
    client) compare_clients ;;
    *) fail "usage: run.sh [relay|client]..." ;;
    esac
done

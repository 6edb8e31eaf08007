#!/usr/bin/env bash
# Runs the programs of examples-c over a router. usage: run.sh bridge|netbox|i2pd   (`make check-examples` and so on)
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=../steps.sh
. "$root/tests/steps.sh"
# shellcheck source=../router.sh
. "$root/tests/router.sh"
# shellcheck source=tunnels.sh
. "$root/tests/examples/tunnels.sh"

bin=$root/target/examples-c
folder=$(mktemp -d) || exit 1
kind=$1
under=()

cleanup() {
    router_stop
    rm -rf "$folder" "$steps_log"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs an example: example SECONDS NAME ARGUMENT...
example() {
    local limit=$1 name=$2
    shift 2
    timeout "$limit" ${under[@]+"${under[@]}"} "$bin/$name" "$@"
}

end_all() {
    local job
    for job in $(jobs -p); do
        end_process "$job"
    done
}

has_line() {
    grep -q "$1" "$2" 2>/dev/null
}

address_in() {
    grep -o '[a-z2-7]*\.b32\.i2p' "$1" | head -n 1
}

# start_program NAME ARGUMENT...: one of the servers in the background, with its address in $address.
start_program() {
    # Of this check alone.
    mkdir "$folder/check.$BASHPID" && cd "$folder/check.$BASHPID" || return 1
    trap end_all EXIT
    example 900 "$@" --sam "$sam_a" "${settings[@]}" >server.out 2>server.err &
    server=$!
    wait_until 200 has_line '^Server address: ' server.out || { cat server.err; return 1; }
    address=$(address_in server.out)
}

start_server() {
    start_program server "$@"
}

start_dgram_server() {
    start_program dgram_server --udp "$udp_a" "$@"
}

# Exit status EXPECTED of a command.
expect() {
    local expected=$1 status
    shift
    "$@"
    status=$?
    [ "$status" = "$expected" ] || { echo "exit status $status instead of $expected"; return 1; }
}

talk() {
    start_server --count 1 || return 1
    example 400 client --sam "$sam_b" "${settings[@]}" "$address" >client.out || return 1
    cat client.out
    [ "$(cat client.out)" = $'Reply of the bridge: RESULT=OK\nAnswer: Hello, how are you?' ] || return 1
    wait "$server" || { cat server.err; return 1; }
    cat server.out server.err
    has_line '^Received a message from [a-z2-7]*\.b32\.i2p: Hello, there!$' server.out
}

# exchange_datagrams OPTION...: the options are those of both programs. Whatever gets lost is sent again.
exchange_datagrams() {
    local status
    start_dgram_server "$@" || return 1
    example 400 dgram_client --sam "$sam_b" --udp "$udp_b" "${settings[@]}" "$@" "$address" >client.out
    status=$?
    cat client.out server.out server.err
    [ "$status" = 0 ] && [ "$(grep -c '^Datagram [0-9]* is back: [0-9]* bytes$' client.out)" = 20 ] || return 1
    has_line ': all 20 are back$' client.out && has_line '^Received 6470 bytes from [a-z2-7]*\.b32\.i2p$' server.out
}

# Where nothing gets lost, nothing is sent again; and the server ends by itself.
every_datagram_once() {
    start_dgram_server --count 20 "$@" || return 1
    example 400 dgram_client --sam "$sam_b" --udp "$udp_b" "${settings[@]}" "$@" "$address" >client.out || return 1
    cat client.out
    has_line '^Sent 20 datagrams, received 20, refused 0: all 20 are back$' client.out || return 1
    wait "$server" || { cat server.err; return 1; }
    cat server.out
    [ "$(grep -c '^Received ' server.out)" = 20 ]
}

# A thousand datagrams of 1 to 7600 bytes between two processes. thousand LIMIT OPTION...: at most LIMIT of them are sent,
# and the options are those of both programs. A raw client sends one more, which tells its address.
thousand() {
    local limit=$1 all=1000 sent
    shift
    case " $* " in *' --raw '*) all=1001 ;; esac
    start_dgram_server "$@" || return 1
    example 800 dgram_client --count 1000 --sam "$sam_b" --udp "$udp_b" "${settings[@]}" "$@" "$address" >client.out \
        2>client.err || { tail -n 3 client.out; tail client.err server.err; return 1; }
    tail -n 1 client.out
    cat client.err
    # Whether each has come back unchanged the client has checked.
    [ "$(sed -n 's/^Datagram \([0-9]*\) is back: .*/\1/p' client.out | sort -n | uniq | wc -l)" = 1000 ] || return 1
    has_line ': all 1000 are back$' client.out && has_line ' is back: 1 bytes$' client.out &&
        has_line ' is back: 7600 bytes$' client.out || return 1
    ! grep -q 'changed' client.err || return 1
    sent=$(sed -n 's/^Sent \([0-9]*\) datagrams.*/\1/p' client.out)
    [ "$sent" -ge "$all" ] && [ "$sent" -le "$limit" ] || { echo "$sent were sent"; return 1; }
}

bad_way_for_datagrams() {
    exchange_datagrams || return 1
    # Otherwise the way was not bad at all.
    ! has_line '^Sent 20 ' client.out || { echo "nothing got lost"; return 1; }
    # The forged ones.
    ! has_line '^Received 6 bytes' server.out || { echo "a forged datagram was believed"; return 1; }
}

# So often has a system call done something, according to strace: done_calls CALL FILE.
done_calls() {
    awk -v call="$1" '$NF == call { calls = $4; if (NF == 6) calls -= $5 } END { print calls + 0 }' "$2"
}

# One system call for each datagram that is sent and for each that is received. (Those that find nothing there, before
# poll, are errors to strace.)
one_call_each() {
    local who call count
    under=(strace -f -c -o server.calls)
    start_dgram_server --count 20 || return 1
    under=(strace -f -c -o client.calls)
    example 100 dgram_client --sam "$sam_b" --udp "$udp_b" "${settings[@]}" "$address" >client.out || return 1
    wait "$server" || { cat server.err; return 1; }
    cat client.out server.calls client.calls
    has_line '^Sent 20 datagrams, received 20,' client.out || return 1
    for who in server client; do
        for call in sendmsg recvmsg; do
            count=$(done_calls "$call" "$who.calls")
            [ "$count" = 20 ] || { echo "$who: $count times $call"; return 1; }
        done
        for call in sendmmsg recvmmsg; do
            [ "$(done_calls "$call" "$who.calls")" = 0 ] || { echo "$who: $call"; return 1; }
        done
    done
}

# Of many that are sent and received together, sixteen for each system call.
few_calls_for_many() {
    local call flags
    flags=$(PKG_CONFIG_PATH=$root/target/pkgconfig "${PKG_CONFIG:-pkg-config}" --cflags --libs i2psock) || return 1
    # shellcheck disable=SC2086
    "${CC:-cc}" -std=c99 -Wall -Wextra -Wpedantic -Werror -o "$folder/many" "$root/tests/examples/many.c" $flags || return 1
    timeout 100 strace -f -c -o "$folder/many.calls" "$folder/many" "$sam_a" "$udp_a" || return 1
    cat "$folder/many.calls"
    for call in sendmmsg recvmmsg; do
        [ "$(done_calls "$call" "$folder/many.calls")" = 4 ] || { echo "64 datagrams are not 4 times $call"; return 1; }
    done
    # The mark.
    for call in sendmsg recvmsg; do
        [ "$(done_calls "$call" "$folder/many.calls")" = 1 ] || { echo "$call"; return 1; }
    done
}

# The name that is looked up, and what comes of it, in two lines of which the second is the b32 address.
find() {
    start_server || return 1
    example 300 lookup --dest --sam "$sam_b" "${settings[@]}" ME "$address" >found || return 1
    cat found
    [ "$(sed -n 4p found)" = "$address" ] || { echo "that is not $address"; return 1; }
    # A destination is its own answer.
    example 60 lookup --sam "$sam_b" -- "$(sed -n 3p found)" >again || return 1
    sed -n 3,4p found | cmp - again || return 1
    expect 1 example 200 lookup --dest --sam "$sam_b" "${settings[@]}" nobody-has-this-name.i2p
}

everything_in_one_loop() {
    example 400 poll --limit 300 --sam "$sam_a" --udp "$udp_a" "${settings[@]}"
}

# A poll loop that calls a server, and that a client calls.
loop_with_others() {
    local loop
    start_server || return 1
    example 400 poll --limit 300 --sam "$sam_a" --udp "$udp_a" "${settings[@]}" "$address" >loop.out &
    loop=$!
    wait_until 200 has_line '^listening destination is open' loop.out || return 1
    # A datagram may have come first, with its sender's address.
    grep '^listening destination is open' loop.out >listening
    example 300 client --sam "$sam_b" "${settings[@]}" "$(address_in listening)" || return 1
    wait "$loop" || { cat loop.out; return 1; }
    cat loop.out
}

# So many bytes each way at the same time.
copy_both_ways() {
    local size=$1 there back
    mkdir "$folder/check.$BASHPID" && cd "$folder/check.$BASHPID" || return 1
    trap end_all EXIT
    head -c "$size" /dev/urandom >data.there
    head -c "$size" /dev/urandom >data.back
    example 600 i2pcat -l --sam "$sam_a" "${settings[@]}" <data.back >got.there 2>there.err &
    there=$!
    wait_until 200 has_line '^Listening on ' there.err || { cat there.err; return 1; }
    example 600 i2pcat -q 2 --sam "$sam_b" "${settings[@]}" "$(address_in there.err)" <data.there >got.back
    back=$?
    wait "$there" && [ "$back" = 0 ] || { cat there.err; return 1; }
    cmp data.there got.there && cmp data.back got.back
}

# A reader that takes its time must not make anything pile up, nor lose anything.
slow_reader() {
    local there
    mkdir "$folder/check.$BASHPID" && cd "$folder/check.$BASHPID" || return 1
    trap end_all EXIT
    mkfifo arriving
    head -c 8000000 /dev/urandom >data
    example 300 i2pcat -l --sam "$sam_a" "${settings[@]}" </dev/null >arriving 2>there.err &
    there=$!
    { sleep 2; head -c 4000000; sleep 2; cat; } <arriving >got &
    wait_until 100 has_line '^Listening on ' there.err || return 1
    example 300 i2pcat -q 5 --sam "$sam_b" "${settings[@]}" "$(address_in there.err)" <data || return 1
    wait "$there" || { cat there.err; return 1; }
    wait
    cmp data got
}

# Whoever reads standard output goes away.
reader_goes() {
    local status
    start_server || return 1
    echo hello | example 60 i2pcat -q 5 --sam "$sam_b" "${settings[@]}" "$address" >/dev/full
    status=$?
    [ "$status" = 3 ] || { echo "exit status $status"; return 1; }
}

wrong_usage() {
    local line
    while read -r line; do
        # shellcheck disable=SC2086
        expect 2 example 20 $line || { echo "of: $line"; return 1; }
    done <<'LINES'
server surplus
server --no-such-option
server --count
server --count many
server --set
server --set nothing
server --set in_depth=8
server --set =x
server --sam
server --sam host:port:
server --udp 127.0.0.1:7655
client
client a.i2p b.i2p
client not/an/address
dgram_server surplus
dgram_server --count many
dgram_server --udp
dgram_server --udp host:port:
dgram_client
dgram_client a.i2p b.i2p
dgram_client not/an/address
dgram_client --tries
dgram_client --count 0 a.i2p
dgram_client --count 7601 a.i2p
dgram_client --count
lookup
poll a.i2p b.i2p
poll --limit -1
i2pcat
i2pcat -l a.i2p
i2pcat -q
tunnel
tunnel server
tunnel server - 127.0.0.1:80 surplus
tunnel server --name alice - 80
tunnel server --timeout long - 80
tunnel server --set nconnect=many - 80
tunnel client 0
tunnel client 0 not/an/address
tunnel neither 0 a.i2p
LINES
}

help() {
    local name
    for name in server client dgram_server dgram_client lookup poll i2pcat tunnel; do
        example 20 "$name" --help | grep -q "^usage: $name " || { echo "$name"; return 1; }
    done
    expect 1 eval 'example 20 server --help >/dev/full'
}

# Port 1 has no listener; if it has, that is no SAM bridge either.
no_bridge() {
    local name
    for name in 'server' 'client a.i2p' 'dgram_server' 'dgram_client a.i2p' 'lookup a.i2p' 'poll' 'i2pcat -l' 'i2pcat a.i2p' \
        'tunnel server - 80' 'tunnel client 0 a.i2p'; do
        # shellcheck disable=SC2086
        expect 1 example 60 ${name%% *} --sam 127.0.0.1:1 ${name#"${name%% *}"} || return 1
        # shellcheck disable=SC2086
        I2P_SAM_ADDRESS=127.0.0.1:1 expect 1 example 60 ${name%% *} ${name#"${name%% *}"} || return 1
    done
}

nobody_there() {
    local name=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b32.i2p
    expect 1 example 60 client --retries 1 --sam "$sam_a" "${settings[@]}" "$name" || return 1
    expect 1 example 60 dgram_client --tries 1 --sam "$sam_a" --udp "$udp_a" "${settings[@]}" "$name" || return 1
    expect 1 example 60 i2pcat --retries 0 --sam "$sam_a" "${settings[@]}" "$name" </dev/null
}

# Somebody is there, but does not return anything.
no_echo() {
    start_server || return 1
    expect 1 example 60 dgram_client --tries 2 --sam "$sam_a" --udp "$udp_a" "${settings[@]}" "$address" >client.out ||
        return 1
    cat client.out
    has_line '^Sent 40 datagrams, received 0, refused 0: 20 of 20 are not back$' client.out
}

# Compiles every example: compile COMPILER FLAG...
compile() {
    local name flags
    flags=$(PKG_CONFIG_PATH=$root/target/pkgconfig "${PKG_CONFIG:-pkg-config}" --cflags --libs i2psock) || return 1
    for name in server client dgram_server dgram_client lookup poll i2pcat tunnel; do
        # shellcheck disable=SC2086
        "$@" -Wall -Wextra -Wpedantic -Werror -o "$folder/compiled" "$root/examples-c/$name.c" "$root/examples-c/common.c" \
            -x none $flags || return 1
    done
}

over_the_bridge() {
    local personality
    check "demo" timeout 300 "$root/examples-c/demo.sh" bridge || return
    for personality in java i2pd-2.45 i2pd-2.58 emissary; do
        BRIDGE_OPTIONS="--personality $personality"
        mkdir "$folder/$personality"
        if ! router_start bridge "$folder/$personality"; then
            check "bridge as $personality" false
            continue
        fi
        check "server and client, bridge as $personality" talk
        check "lookup, bridge as $personality" find
        check "poll, bridge as $personality" everything_in_one_loop
        check "datagrams, bridge as $personality" every_datagram_once
        check "1000 datagrams, bridge as $personality" thousand 1000
        # i2pd loses raw datagrams of one and two bytes.
        [ "$personality" != "${personality#i2pd}" ] ||
            check "1000 raw datagrams, bridge as $personality" thousand 1001 --raw
        # emissary sends datagrams by UDP only.
        [ "$personality" = emissary ] ||
            check "datagrams in band, bridge as $personality" every_datagram_once --set in_band=1
        check "i2pcat, 10 MiB each way, bridge as $personality" copy_both_ways 10485760
        router_stop
    done
    BRIDGE_OPTIONS='--split 1'
    mkdir "$folder/bridge"
    router_start bridge "$folder/bridge" || { check "bridge" false; return; }
    check "server and client, replies byte by byte" talk
    check "poll with a server and a client" loop_with_others
    check "1000 datagrams in band" thousand 1000 --set in_band=1
    check "1000 raw datagrams in band" thousand 1001 --raw --set in_band=1
    check "i2pcat with a slow reader" slow_reader
    check "i2pcat without a reader" reader_goes
    check "nobody is at the address" nobody_there
    check "nobody returns datagrams" no_echo
    if has strace; then
        check "one system call for each datagram" one_call_each
        check "four system calls for 64 datagrams" few_calls_for_many
    else
        skip "strace is not installed: the system calls of datagrams are not counted"
    fi
    tunnels_over_the_bridge
    check "wrong usage" wrong_usage
    check "--help" help
    check "no bridge" no_bridge
    if has valgrind; then
        under=(valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite,indirect)
        check "valgrind: server and client" talk
        check "valgrind: datagrams" every_datagram_once
        check "valgrind: 1000 datagrams" thousand 1200
        check "valgrind: 1000 raw datagrams" thousand 1200 --raw
        check "valgrind: datagrams in band" every_datagram_once --set in_band=1
        check "valgrind: lookup" find
        check "valgrind: poll" everything_in_one_loop
        check "valgrind: i2pcat" copy_both_ways 300000
        check "valgrind: nobody is at the address" nobody_there
        check "valgrind: tunnels" web_requests 20 50000 1
        under=()
    else
        skip "valgrind is not installed: leaks are not looked for"
    fi
    router_stop
    BRIDGE_OPTIONS='--loss 20 --duplicate 10 --reorder 10 --forge 10 --seed 1'
    mkdir "$folder/bad"
    if router_start bridge "$folder/bad"; then
        check "datagrams that get lost, doubled, mixed and forged" bad_way_for_datagrams
        check "poll where datagrams get lost" everything_in_one_loop
    else
        check "bridge that loses datagrams" false
    fi
    BRIDGE_OPTIONS='--build-delay 600000'
    mkdir "$folder/slow"
    if router_start bridge "$folder/slow"; then
        check "a tunnel that is not there yet ends" tunnel_ends_before_it_is_there
        router_stop
    else
        check "bridge that is slow" false
    fi
    if has clang; then
        check "examples compile with clang" compile clang -std=c99 -Wshadow -Wconversion
    else
        skip "clang is not installed"
    fi
    if has "${CXX:-c++}"; then
        check "examples compile as C++" compile "${CXX:-c++}" -x c++
    else
        skip "there is no C++ compiler"
    fi
}

over_real_routers() {
    check "demo over $kind" timeout 1500 "$root/examples-c/demo.sh" "$kind"
    mkdir "$folder/$kind"
    router_start "$kind" "$folder/$kind" || { check "$kind starts" false; return; }
    check "poll over $kind" everything_in_one_loop
    check "datagrams over $kind" exchange_datagrams
    check "1000 datagrams over $kind" thousand 10000
    # i2pd loses raw datagrams of one and two bytes.
    [ "$kind" = i2pd ] || check "1000 raw datagrams over $kind" thousand 10000 --raw
    check "lookup over $kind" find
    tunnels 20 50000 4
    router_stop
}

case $kind in
bridge) over_the_bridge ;;
netbox)
    if [ -x "$root/target/netbox/release/netbox" ]; then
        over_real_routers
    else
        skip "no netbox: it needs libssl-dev and pkg-config"
    fi
    ;;
i2pd)
    if has i2pd || [ -x /usr/sbin/i2pd ]; then
        over_real_routers
    else
        skip "i2pd is not installed"
    fi
    ;;
*)
    echo "usage: run.sh bridge|netbox|i2pd" >&2
    exit 2
    ;;
esac
finish

#!/usr/bin/env bash
# Runs the programs of examples-c over a router. usage: run.sh bridge|netbox|i2pd|i2pd-net
# (`make check-examples` and so on; i2pd-net is a network of the i2pd in the folder $I2PD.)
set -u

# shellcheck source=../steps.sh
. "$(dirname "$0")/../steps.sh"
# shellcheck source=programs.sh
. "$root/tests/examples/programs.sh"
# shellcheck source=tunnels.sh
. "$root/tests/examples/tunnels.sh"

kind=$1
called=$(called "$kind") || exit 1
under=()
# So many seconds something may take that is soon done as a rule.
patience=60

# Before the first check, also of those that are done aside.
begin() {
    # Names of these tests must not get into the user's own key store, nor into that of others of them.
    export XDG_DATA_HOME=$folder/data
    # For what is worth knowing of a check that succeeds.
    exec 5>&1
}

# own_bridge OPTION...: with these options, in the place of the one before.
own_bridge() {
    local own
    begin
    router_stop
    own=$(mktemp -d "$folder/bridge.XXXXXXXX") || return 1
    BRIDGE_OPTIONS=$*
    router_start bridge "$own" || { bad "bridge $*"; return 1; }
}

# Runs an example: example SECONDS NAME ARGUMENT...
example() {
    local limit=$1 name=$2
    shift 2
    timeout "$limit" ${under[@]+"${under[@]}"} "$bin/$name" "$@"
}

# As example, for the background: the process is the program's, or rather that of timeout, which passes signals on.
exec_example() {
    local limit=$1 name=$2
    shift 2
    exec timeout "$limit" ${under[@]+"${under[@]}"} "$bin/$name" "$@"
}

# start_program NAME ARGUMENT...: one of the servers in the background, with its address in $address.
start_program() {
    # Of this check alone.
    own_folder || return 1
    trap end_all EXIT
    exec_example 900 "$@" --sam "$sam_a" "${settings[@]}" >server.out 2>server.err &
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

# Whatever gets lost is sent again.
exchange_datagrams() {
    local status
    start_dgram_server || return 1
    example 400 dgram_client --sam "$sam_b" --udp "$udp_b" "${settings[@]}" "$address" >client.out
    status=$?
    cat client.out server.out server.err
    [ "$status" = 0 ] && [ "$(grep -c '^Datagram [0-9]* is back: [0-9]* bytes$' client.out)" = 20 ] || return 1
    has_line ': all 20 are back$' client.out && has_line '^Received 6470 bytes from [a-z2-7]*\.b32\.i2p$' server.out
}

# Where nothing gets lost, nothing is sent again, however slow the machine is; and the server ends by itself.
every_datagram_once() {
    start_dgram_server --count 20 "$@" || return 1
    example 400 dgram_client --patience 100 --sam "$sam_b" --udp "$udp_b" "${settings[@]}" "$@" "$address" >client.out || return 1
    cat client.out
    has_line '^Sent 20 datagrams, received 20, refused 0: all 20 are back$' client.out || return 1
    wait "$server" || { cat server.err; return 1; }
    cat server.out
    [ "$(grep -c '^Received ' server.out)" = 20 ]
}

# A thousand datagrams of 1 to 7600 bytes between two processes. thousand LIMIT OPTION...: at most LIMIT of them are sent,
# and the options are those of both programs. A raw client sends one more, which tells its address.
thousand() {
    local limit=$1 all=1000 sent patient=()
    shift
    case " $* " in *' --raw '*) all=1001 ;; esac
    # Over the bridge, what is late is not lost.
    [ "$real" = 1 ] || patient=(--patience 60)
    start_dgram_server "$@" || return 1
    example 800 dgram_client --count 1000 ${patient[@]+"${patient[@]}"} --sam "$sam_b" --udp "$udp_b" "${settings[@]}" "$@" \
        "$address" >client.out 2>client.err || { tail -n 3 client.out; tail client.err server.err; return 1; }
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
    example 300 dgram_client --patience 100 --sam "$sam_b" --udp "$udp_b" "${settings[@]}" "$address" >client.out || return 1
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
    # The mark, and with it what goes by itself, once a second, to see whether the bridge listens.
    [ "$(done_calls recvmsg "$folder/many.calls")" = 1 ] || { echo recvmsg; return 1; }
    call=$(done_calls sendmsg "$folder/many.calls")
    [ "$call" -ge 2 ] && [ "$call" -le 6 ] || { echo "$call times sendmsg"; return 1; }
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
    exec_example 400 poll --limit 300 --sam "$sam_a" --udp "$udp_a" "${settings[@]}" "$address" >loop.out &
    loop=$!
    wait_until 200 has_line '^listening destination is open' loop.out || return 1
    # A datagram may have come first, with its sender's address.
    grep '^listening destination is open' loop.out >listening
    example 300 client --sam "$sam_b" "${settings[@]}" "$(address_in listening)" || return 1
    wait "$loop" || { cat loop.out; return 1; }
    cat loop.out
}

# have_size BYTES FILE...: each of the files has that many bytes, or more.
have_size() {
    local size=$1 file
    shift
    for file; do
        [ -f "$file" ] && [ "$(wc -c <"$file")" -ge "$size" ] || return 1
    done
}

# So many bytes each way at the same time.
copy_both_ways() {
    local size=$1 there back
    own_folder || return 1
    trap end_all EXIT
    head -c "$size" /dev/urandom >data.there
    head -c "$size" /dev/urandom >data.back
    exec_example 600 i2pcat -l --sam "$sam_a" "${settings[@]}" <data.back >got.there 2>there.err &
    there=$!
    wait_until 200 has_line '^Listening on ' there.err || { cat there.err; return 1; }
    # However long a disk takes over it: the input ends when everything is there.
    # shellcheck disable=SC2094
    { cat data.there; wait_until 400 have_size "$size" got.there got.back; } |
        example 600 i2pcat -q 1 --sam "$sam_b" "${settings[@]}" "$(address_in there.err)" >got.back
    back=$?
    wait "$there" && [ "$back" = 0 ] || { cat there.err; return 1; }
    cmp data.there got.there && cmp data.back got.back
}

# A reader that does not read makes the writer wait, and nothing is lost.
slow_reader() {
    local there writer
    own_folder || return 1
    trap end_all EXIT
    mkfifo arriving
    head -c $((4000000 + $(room_between))) /dev/urandom >data
    exec_example 300 i2pcat -l --sam "$sam_a" "${settings[@]}" </dev/null >arriving 2>there.err &
    there=$!
    # To read from, whenever it is opened for writing.
    exec 7<>arriving && exec 8<arriving && exec 7>&-
    wait_until 100 has_line '^Listening on ' there.err || return 1
    exec_example 300 i2pcat -q 5 --sam "$sam_b" "${settings[@]}" "$(address_in there.err)" <data &
    writer=$!
    wait_until "$patience" stands_still "$writer" i2pcat || { cat there.err; return 1; }
    head -c 4000000 <&8 >got
    wait_until "$patience" stands_still "$writer" i2pcat || { cat there.err; return 1; }
    cat <&8 >>got &
    exec 8<&-
    wait "$writer" && wait "$there" || { cat there.err; return 1; }
    wait
    cmp data got
}

# Whoever reads standard output goes away.
reader_goes() {
    local status
    start_server || return 1
    echo hello | example 100 i2pcat -q 60 --sam "$sam_b" "${settings[@]}" "$address" >/dev/full
    status=$?
    [ "$status" = 3 ] || { echo "exit status $status"; return 1; }
}

# ---- names, listeners, recovery ----

# Process number of the program itself: program_of PROCESS [NAME].
program_of() {
    pgrep -P "$1" ${2:+-x "$2"}
}

has_both() {
    has_line "$1" "$2" && has_line "$1" "$3"
}

# How many lines of FILE match: lines_are COUNT PATTERN FILE.
lines_are() {
    [ "$(grep -c "$2" "$3")" = "$1" ]
}

lines_reach() {
    [ "$(grep -c "$2" "$3")" -ge "$1" ]
}

# whole_lines_are COUNT FILE: those without an end do not count.
whole_lines_are() {
    [ -f "$2" ] && [ "$(wc -l <"$2")" = "$1" ]
}

# Starts i2pcat -l with the options given; its address goes to $address.
start_listening() {
    : >listen.err
    exec_example 200 i2pcat -l --sam "$sam_a" "${settings[@]}" "$@" </dev/null >listen.out 2>listen.err &
    listening=$!
    wait_until 60 has_line '^Listening on ' listen.err || { cat listen.err; return 1; }
    address=$(address_in listen.err)
}

same_address_every_time() {
    local first listening
    own_folder || return 1
    trap end_all EXIT
    start_listening -k alice || return 1
    first=$address
    end_process "$listening"
    start_listening -k bob || return 1
    [ "$address" != "$first" ] || { echo "two names have the same address"; return 1; }
    end_process "$listening"
    # Another folder, other keys.
    start_listening -k alice --keys "$PWD/keys" || return 1
    [ "$address" != "$first" ] && [ -e keys/alice.dat ] || { echo "--keys does nothing"; return 1; }
    end_process "$listening"
    start_listening -k alice || return 1
    [ "$address" = "$first" ] || { echo "$first has become $address"; return 1; }
    echo hello | example 100 i2pcat -k bob -q 1 --sam "$sam_b" "${settings[@]}" "$first" || return 1
    wait "$listening" && [ "$(cat listen.out)" = hello ] || { cat listen.err; return 1; }
    # That of the connecting side is kept, too.
    start_server --count 1 || return 1
    echo hello | example 100 i2pcat -k alice -q 1 --sam "$sam_b" "${settings[@]}" "$address" || return 1
    wait "$server" || { cat server.err; return 1; }
    cat server.out
    has_line "^Received a message from $first: hello" server.out
}

name_of_another_process() {
    local listening
    own_folder || return 1
    trap end_all EXIT
    start_listening -k carol || return 1
    expect 1 example 60 i2pcat -l -k carol --sam "$sam_b" "${settings[@]}" </dev/null 2>second.err || return 1
    cat second.err
    has_line "\"carol\" is open in process $(program_of "$listening")\$" second.err || return 1
    # The one that has it was not disturbed, and gives it free.
    echo hello | example 100 i2pcat -q 1 --sam "$sam_b" "${settings[@]}" "$address" || return 1
    wait "$listening" && [ "$(cat listen.out)" = hello ] || { cat listen.err; return 1; }
    start_listening -k carol
}

# Each line with the time before it.
stamped() {
    local line
    while IFS= read -r line; do
        printf '%s %s\n' "$EPOCHREALTIME" "$line"
    done
}

server_over_a_restart() {
    local named
    own_folder && start_own_router bridge || return 1
    # Without a name the destination goes with the router.
    exec_example 300 server --sam "$sam_a" >transient.out 2>transient.err &
    transient=$!
    exec_example 300 server --name alice --sam "$sam_a" >named.out 2>named.err &
    named=$!
    wait_until 60 has_both '^Server address: ' named.out transient.out || { cat named.err transient.err; return 1; }
    address=$(address_in named.out)
    example 100 client --sam "$sam_a" "$address" || return 1
    router_kill || return 1
    wait "$transient"
    [ $? = 1 ] && has_line 'server: the destination has ended: ' transient.err || { cat transient.err; return 1; }
    # Nobody is there the first time. (A program that was not looked at for a while tells of the latest attempt only.)
    wait_until 60 has_line '^server: lost: .*; attempt [2-9]$' named.err || { cat named.err; return 1; }
    router_restart || return 1
    wait_until 60 has_line '^server: ready again$' named.err || { cat named.err; return 1; }
    example 100 client --sam "$sam_a" "$address" || { cat named.err; return 1; }
    cat named.out named.err
    lines_are 2 '^Received a message from .*: Hello, there!$' named.out
}

# ---- chat ----

declare -A chatting=() feeding=() address_of=() short_of=()

# start_chat WHO ARGUMENT...: what comes into the file WHO.say it says; WHO.out is what it shows, WHO.err the rest, stamped.
start_chat() {
    local who=$1
    shift
    # What is in the background empties its files when it comes to it, and an earlier chat of this name must not be read.
    rm -f "$who.err" && : >"$who.err" && mkfifo "$who.in" && : >"$who.say" || return 1
    tail -f -n +1 "$who.say" >"$who.in" 2>/dev/null &
    feeding[$who]=$!
    LC_ALL=C.UTF-8 exec_example 600 chat --sam "${chat_sam:-$sam_a}" "${settings[@]}" "$@" <"$who.in" \
        >"${chat_output:-$who.out}" 2> >(stamped >"$who.err") &
    chatting[$who]=$!
    wait_until "$patience" has_line 'others reach you at' "$who.err" || { cat "$who.err"; return 1; }
    address_of[$who]=$(address_in "$who.err")
    short_of[$who]=${address_of[$who]:0:8}
}

# hears WHO OTHER TEXT: WHO gets to see this line of OTHER.
hears() {
    wait_until "$patience" has_line "^${short_of[$2]}: $3\$" "$1.out" || { tail -n 100 "$1.out" "$1.err"; return 1; }
}

# The input of WHO ends, and then it does.
quit_chat() {
    end_process "${feeding[$1]}"
    wait_until "$patience" has_ended "${chatting[$1]}" || { cat "$1.err"; return 1; }
    expect "${2:-0}" wait "${chatting[$1]}" || { cat "$1.err"; return 1; }
}

has_ended() {
    ! kill -0 "$1" 2>/dev/null
}

# On real routers not everybody may be reached at once. Sets $rounds: so often it was said.
say_to_both() {
    for ((rounds = 1; rounds <= 1 + 3 * real; rounds++)); do
        echo 'hello both' | example 200 chat --sam "$sam_a" "${settings[@]}" "${address_of[alice]}" "${address_of[bob]}" &&
            wait_until 60 has_both ': hello both$' alice.out bob.out && return 0
    done
    cat ./*.err
    return 1
}

three_chat() {
    local who other rounds heard
    own_folder || return 1
    trap end_all EXIT
    start_chat alice || return 1
    # Said before anybody is there.
    echo 'early bird' >>alice.say
    chat_sam=$sam_b start_chat bob "${address_of[alice]}" || return 1
    hears bob alice 'early bird' || return 1
    start_chat carol "${address_of[alice]}" "${address_of[bob]}" || return 1
    for who in alice bob carol; do
        for other in alice bob carol; do
            [ "$who" = "$other" ] || wait_until "$patience" has_line " ${short_of[$other]} is here\$" "$who.err" ||
                { cat ./*.err; return 1; }
        done
    done
    for who in alice bob carol; do
        echo "I am $who, grüß dich" >>"$who.say"
    done
    for who in alice bob carol; do
        for other in alice bob carol; do
            [ "$who" = "$other" ] || hears "$who" "$other" "I am $other, grüß dich" || return 1
        done
    done
    # Who has only one line to say gets to say it to both.
    say_to_both || return 1
    # Who leaves is missed, and the others go on.
    quit_chat bob || return 1
    wait_until "$patience" has_both "chat: ${short_of[bob]} has left\$" alice.err carol.err || { cat ./*.err; return 1; }
    echo 'only we two' >>carol.say
    hears alice carol 'only we two' || return 1
    quit_chat carol && quit_chat alice || return 1
    # Everything once, and nothing besides.
    cat ./*.out
    heard=$(cat ./*.out | wc -l)
    [ "$heard" -ge 10 ] && [ "$heard" -le $((8 + 2 * rounds)) ]
}

# Two who call each other have two streams, and nothing is said twice.
two_streams_between_two() {
    local bob
    own_folder || return 1
    trap end_all EXIT
    start_chat bob --name bob || return 1
    bob=$(example 60 lookup --sam "$sam_b" "${settings[@]}" --dest "${address_of[bob]}" | sed -n 1p) || return 1
    quit_chat bob && rm bob.in || return 1
    # Or else she might still find him there.
    wait_until "$patience" expect 1 example 60 lookup --sam "$sam_b" "${address_of[bob]}" || return 1
    # In base64, so that she does not know whom she calls.
    start_chat alice "$bob" && wait_until "$patience" has_line 'is not there yet' alice.err || return 1
    # He does not call who is there already: she must not call before he does.
    stopped=$(program_of "${chatting[alice]}" chat) || return 1
    kill -STOP "$stopped"
    start_chat bob --name bob "${address_of[alice]}" &&
        wait_until "$patience" has_line " ${short_of[alice]} is here\$" bob.err || { cat ./*.err; return 1; }
    kill -CONT "$stopped" && stopped=''
    wait_until "$patience" lines_reach 2 " ${short_of[bob]} is here\$" alice.err &&
        wait_until "$patience" lines_reach 2 " ${short_of[alice]} is here\$" bob.err || { cat ./*.err; return 1; }
    echo 'once' >>alice.say
    echo 'me too' >>bob.say
    hears alice bob 'me too' && hears bob alice 'once' || return 1
    quit_chat bob && quit_chat alice && cat ./*.out && [ "$(cat ./*.out | wc -l)" = 2 ]
}

# Whether none of the threads of these processes runs, nor would if there were a processor for it.
at_rest() {
    local process
    for process; do
        ! cat "/proc/$process/task/"*/stat 2>/dev/null | sed 's/.*) //' | grep -q '^[RD]' || return 1
    done
}

position() {
    sed -n 's/^pos:[[:space:]]*//p' "/proc/$1/fdinfo/0"
}

# stands_still PROCESS NAME: whether that program has begun to read the file that is its input, and waits for somebody who takes
# what it writes. More than one look, since something may be under way in the system.
stands_still() {
    local program before i
    program=$(program_of "$1" "$2") && before=$(position "$program") && [ "$before" -gt 100000 ] || return 1
    for ((i = 0; i < 10; i++)); do
        sleep 0.03
        at_rest "$program" "$router_pid" && [ "$(position "$program")" = "$before" ] || return 1
    done
}

# At most so many bytes find room in sockets between two programs of which one does not read, with the bridge between them.
room_between() {
    cat /proc/sys/net/ipv4/tcp_rmem /proc/sys/net/ipv4/tcp_wmem 2>/dev/null |
        awk '{ sum += $3 } END { print 2 * (sum ? sum : 10000000) + 1000000 }'
}

# A whole file is said at the pace of those who hear it, and to its end, which has no newline.
chat_from_a_file() {
    local bob
    own_folder || return 1
    trap end_all EXIT
    start_chat alice || return 1
    seq -f 'line %.0f of a file, and not a short one either: what it goes through has room for many' $(($(room_between) / 80)) |
        head -c -1 >file
    stopped=$(program_of "${chatting[alice]}" chat) || return 1
    kill -STOP "$stopped"
    exec_example 200 chat --sam "$sam_b" "${settings[@]}" "${address_of[alice]}" <file >bob.out 2>bob.err &
    bob=$!
    # As long as she does not listen he has to wait.
    wait_until "$patience" stands_still "$bob" chat || { cat bob.err; return 1; }
    kill -CONT "$stopped" && stopped=''
    wait "$bob" || { cat bob.err; return 1; }
    wait_until "$patience" has_line ' has left$' alice.err || { cat alice.err; return 1; }
    echo >>file
    sed 's/^[a-z2-7]*: //' alice.out | cmp - file || return 1
    # Nowhere to show what is heard.
    chat_output=/dev/full start_chat carol "${address_of[alice]}" && wait_until "$patience" has_line ' is here$' carol.err || return 1
    echo hello >>alice.say
    wait_until "$patience" has_ended "${chatting[carol]}" || { cat carol.err; return 1; }
    expect 1 wait "${chatting[carol]}" && quit_chat alice || return 1
    # Nobody is there, and nothing was said.
    expect 0 example 60 chat --sam "$sam_b" "${settings[@]}" </dev/null
}

hostile_lines() {
    local long expected
    own_folder || return 1
    trap end_all EXIT
    start_chat alice || return 1
    long=$(printf '%05000d' 7)
    printf 'a\033[2Jb\007\tc\n\302\2332J\n\377\342\200\256evil\303\n\rbob: hi\r\n%s\n\n\300\257\355\240\200\n\0\177 grün 日本 😀\nno end' \
        "$long" >data
    example 60 i2pcat -k mallory -q 2 --sam "$sam_b" "${settings[@]}" "${address_of[alice]}" <data 2>mallory.err ||
        { cat mallory.err; return 1; }
    wait_until "$patience" has_line ' has left$' alice.err || { cat alice.err; return 1; }
    quit_chat alice || return 1
    sed 's/^[a-z2-7]\{8\}: //' alice.out >got
    printf '%s\n' 'a?[2Jb??c' '??2J' '????evil?' '?bob: hi' "${long:0:1000}..." '' '?????' '?? grün 日本 😀' 'no end' >expected
    diff expected got || return 1
    # A terminal that does not know UTF-8 is not shown any.
    LC_ALL=C example 60 chat --sam "$sam_b" "${settings[@]}" "${address_of[alice]}" </dev/null
}

# Nobody waits for somebody who does not read.
slow_peer() {
    local round sent
    own_folder || return 1
    trap end_all EXIT
    start_chat alice && start_chat slow "${address_of[alice]}" && start_chat fast "${address_of[alice]}" || return 1
    wait_until "$patience" lines_are 2 ' is here$' alice.err || return 1
    stopped=$(program_of "${chatting[slow]}" chat) || return 1
    kill -STOP "$stopped"
    # As much as it takes: what lies between the two has room for some.
    for ((round = 1; round <= 100; round++)); do
        seq -f "round $round line %.0f, and a long line it is, to fill what has room between the two" 10000 >>alice.say
        sent=$(wc -l <alice.say)
        wait_until "$patience" whole_lines_are "$sent" fast.out || { wc -l fast.out; tail -n 3 ./*.err; return 1; }
        ! has_line 'takes nothing any more' alice.err || break
    done
    cat alice.err
    has_line "chat: ${short_of[slow]} takes nothing any more, and is dropped\$" alice.err || return 1
    ! has_line "${short_of[fast]} takes nothing" alice.err || return 1
    sed 's/^[a-z2-7]*: //' fast.out | cmp - alice.say && quit_chat alice
}

# The router is killed under two chats, and started again with the same port. Both open their sessions again, and the one
# that has called the other calls again, with nobody's help.
chats_over_a_restart() {
    local killed back round
    own_folder && start_own_router "$1" || return 1
    start_chat alice --name alice && chat_sam=$sam_b start_chat bob --name bob "${address_of[alice]}" || return 1
    wait_until 120 has_both ' is here$' alice.err bob.err || { cat ./*.err; return 1; }
    echo 'before' >>alice.say
    hears bob alice 'before' || return 1
    killed=${EPOCHREALTIME/./}
    router_kill || return 1
    # The router is not there yet when it is looked for. (A program that was slow tells of the latest attempt only.)
    wait_until "$patience" has_both ' has left$' alice.err bob.err &&
        wait_until "$patience" has_both 'chat: lost: .*; attempt [2-9]$' alice.err bob.err || { cat ./*.err; return 1; }
    router_restart || return 1
    # Over a router that is just starting, the first stream may break off again, and with it what was said on it.
    for ((round = 1; round <= 12; round++)); do
        echo "after $round" >>bob.say
        ! wait_until 10 has_line "^${short_of[bob]}: after [0-9]*\$" alice.out || break
    done
    echo 'welcome back' >>alice.say
    hears alice bob 'after [0-9]*' && hears bob alice 'welcome back' || { cat ./*.err; return 1; }
    back=${EPOCHREALTIME/./}
    # What is said on standard error may come later than what is said on standard output after it.
    wait_until "$patience" has_both 'chat: ready again$' alice.err bob.err || { cat ./*.err; return 1; }
    printf '    %s: both heard each other again %d.%d s after the kill\n' "$1" $(((back - killed) / 1000000)) \
        $(((back - killed) / 100000 % 10)) >&5
    quit_chat bob && quit_chat alice
}

wrong_usage() {
    local line
    while read -r line; do
        # shellcheck disable=SC2086
        expect 2 example 60 $line || { echo "of: $line"; return 1; }
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
dgram_client --patience 0 a.i2p
dgram_client --count
lookup
poll a.i2p b.i2p
poll --limit -1
i2pcat
i2pcat -l a.i2p
i2pcat -q
i2pcat -l -k
i2pcat -l --keys
server --name
chat not/an/address
chat --name
chat --keys
chat 1.i2p 2.i2p 3.i2p 4.i2p 5.i2p 6.i2p 7.i2p 8.i2p 9.i2p 10.i2p 11.i2p 12.i2p 13.i2p 14.i2p 15.i2p 16.i2p 17.i2p
tunnel
tunnel server
tunnel server - 127.0.0.1:80 surplus
tunnel server --name alice - 80
tunnel server --timeout long - 80
tunnel server --idle-timeout -1 - 80
tunnel server --set nconnect=many - 80
tunnel client 0
tunnel client 0 not/an/address
tunnel neither 0 a.i2p
LINES
}

# Whatever a secret is given for by mistake, it is not on the terminal afterwards.
secrets_by_mistake() {
    local key secret='19fX19fX19fX19fX' password=pass-19fX case arguments
    own_folder || return 1
    # In form, the keys of an Ed25519 destination, with private parts that no public part has.
    key=$({
        head -c 384 /dev/zero | tr '\0' Z
        printf '\005\000\004\000\007\000\000'
        head -c 288 /dev/zero | tr '\0' '\327'
    } | LC_ALL=C base64 -w 0 | tr '+/' '-~')
    while read -r case; do
        case=${case//KEY/$key}
        IFS=' ' read -r -a arguments <<<"${case//PASSWORD/$password}"
        example 60 "${arguments[0]}" --sam 127.0.0.1:1 "${arguments[@]:1}" </dev/null >out 2>&1 &&
            { echo "succeeds: $case"; return 1; }
        ! grep -qE "$secret|$password" out || { echo "of: $case"; cat out; return 1; }
        [ -s out ] || { echo "says nothing: $case"; return 1; }
    done <<'LINES'
lookup KEY
lookup xKEY
lookup KEY.i2p
client KEY
dgram_client KEY
chat KEY
poll KEY
i2pcat KEY
i2pcat -q KEY
i2pcat -k KEY -l
i2pcat -l KEY
tunnel client 0 KEY
tunnel client KEY a.i2p
tunnel server KEY 80
tunnel server - KEY
tunnel KEY
server KEY
server --KEY
server --KEY=1
server --count KEY
server --name KEY
server --udp KEY
server --sam KEY
server --sam KEY:1
server --set KEY
server --set KEY=1
server --set in_depth=KEY
server --set in_depth=8,KEY
server --set i2cp.leaseSetPrivKey=PASSWORD"
server --set=i2cp.leaseSetPrivKey=PASSWORD
server --password PASSWORD
server --password=PASSWORD
server --set password=PASSWORD
server --set i2cp.leaseSetSecret==PASSWORD\
LINES
    # Where options are looked at before the router is asked for anything.
    expect 1 example 60 lookup --sam "$sam_a" "$key" >out 2>&1 && ! grep -q "$secret" out && grep -q '<private>' out || { cat out; return 1; }
}

help() {
    local name
    for name in server client dgram_server dgram_client lookup poll i2pcat chat tunnel; do
        example 60 "$name" --help | grep -q "^usage: $name " || { echo "$name"; return 1; }
    done
    expect 1 eval 'example 60 server --help >/dev/full'
}

# Port 1 has no listener; if it has, that is no SAM bridge either.
no_bridge() {
    local name
    for name in 'server' 'client a.i2p' 'dgram_server' 'dgram_client a.i2p' 'lookup a.i2p' 'poll' 'i2pcat -l' 'i2pcat a.i2p' \
        'i2pcat -l -k alice' 'chat' 'chat --name alice a.i2p' \
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
    for name in server client dgram_server dgram_client lookup poll i2pcat chat tunnel; do
        # shellcheck disable=SC2086
        "$@" -Wall -Wextra -Wpedantic -Werror -o "$folder/compiled" "$root/examples-c/$name.c" "$root/examples-c/common.c" \
            -x none $flags || return 1
    done
}

# One that behaves like those of these routers.
personalities() {
    local personality
    for personality in java i2pd-2.45 i2pd-2.58 emissary; do
        own_bridge --personality "$personality" || continue
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
        check "chat, bridge as $personality" three_chat
    done
    if own_bridge --loss 20 --duplicate 10 --reorder 10 --forge 10 --seed 1; then
        check "datagrams that get lost, doubled, mixed and forged" bad_way_for_datagrams
        check "poll where datagrams get lost" everything_in_one_loop
    fi
    if own_bridge --build-delay 600000; then
        check "a tunnel that is not there yet ends" tunnel_ends_before_it_is_there
    fi
    if own_bridge; then
        check "programs that are there before the router" started_before_the_router
    fi
}

streams_and_datagrams() {
    own_bridge --split 1 || return
    check "server and client, replies byte by byte" talk
    check "poll with a server and a client" loop_with_others
    check "1000 datagrams in band" thousand 1000 --set in_band=1
    check "1000 raw datagrams in band" thousand 1001 --raw --set in_band=1
    check "i2pcat with a slow reader" slow_reader
    check "i2pcat without a reader" reader_goes
    check "nobody is at the address" nobody_there
    check "nobody returns datagrams" no_echo
    if ! has strace; then
        skip "strace is not installed: the system calls of datagrams are not counted"
    elif ! strace -f -c -o /dev/null true 2>/dev/null; then
        skip "strace is not allowed to trace here: the system calls of datagrams are not counted"
    else
        check "one system call for each datagram" one_call_each
        check "four system calls for 64 datagrams" few_calls_for_many
    fi
    check "wrong usage" wrong_usage
    check "secrets given by mistake" secrets_by_mistake
    check "--help" help
    check "no bridge" no_bridge
}

names_and_chat() {
    own_bridge --split 1 || return
    check "a name has the same address every time" same_address_every_time
    check "a name that another process has" name_of_another_process
    check "the router itself over a restart" timeout 300 "$root/tests/restart.sh" bridge
    check "server --name over a restart of the router" server_over_a_restart
    check "chat over a restart of the router" chats_over_a_restart bridge
    check "chat from a file" chat_from_a_file
    check "chat with two streams between two" two_streams_between_two
    check "chat with hostile lines" hostile_lines
    check "chat with a slow peer" slow_peer
}

tunnels_alone() {
    own_bridge --split 1 || return
    tunnels_over_the_bridge
}

use_valgrind() {
    own_bridge --split 1 || return
    under=(valgrind --quiet --error-exitcode=99 --leak-check=full '--errors-for-leak-kinds=definite,indirect')
}

valgrind_data() {
    use_valgrind || return
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
}

valgrind_names() {
    use_valgrind || return
    check "valgrind: a name has the same address every time" same_address_every_time
    check "valgrind: server --name over a restart of the router" server_over_a_restart
    check "valgrind: chat" three_chat
    check "valgrind: chat over a restart of the router" chats_over_a_restart bridge
}

over_the_bridge() {
    begin
    check "demo" timeout 300 "$root/examples-c/demo.sh" bridge || return
    if has valgrind; then
        aside valgrind_names
        aside valgrind_data
    else
        skip "valgrind is not installed: leaks are not looked for"
    fi
    aside names_and_chat
    aside tunnels_alone
    aside streams_and_datagrams
    aside personalities
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
    join
}

# ---- over real routers ----

# They are real ones, on which everything takes a while: what goes on at the same time waits at the same time.
real_demo() {
    check "demo over $called" timeout --foreground 1500 "$root/examples-c/demo.sh" "$kind"
}

real_restart() {
    begin
    check "chat over $called that is killed and started anew" chats_over_a_restart "$kind"
}

real_datagrams() {
    begin
    check "datagrams over $called" exchange_datagrams
    check "1000 datagrams over $called" thousand 10000
    # i2pd loses raw datagrams of one and two bytes.
    [ "$kind" != "${kind#i2pd}" ] || check "1000 raw datagrams over $called" thousand 10000 --raw
}

real_chat() {
    begin
    check "chat over $called" three_chat
}

real_tunnels() {
    begin
    tunnels 20 50000 4
}

over_real_routers() {
    begin
    patience=240
    aside real_demo
    aside real_restart
    mkdir "$folder/$kind"
    if router_start "$kind" "$folder/$kind"; then
        aside real_datagrams
        aside real_chat
        aside real_tunnels
        check "poll over $called" everything_in_one_loop
        check "lookup over $called" find
    else
        bad "$called starts"
    fi
    join
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
i2pd-net) over_real_routers ;;
*)
    echo "usage: run.sh bridge|netbox|i2pd|i2pd-net" >&2
    exit 2
    ;;
esac
finish

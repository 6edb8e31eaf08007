#!/usr/bin/env bash
# Two programs find each other over I2P and talk; then a file goes over, and comes out whole.
#
# usage: demo.sh auto|bridge|netbox|i2pd   (`make demo` builds what this needs)
set -u

root=$(cd "$(dirname "$0")/.." && pwd)
bin=$root/target/examples-c
# shellcheck source=../tests/router.sh
. "$root/tests/router.sh"

folder=$(mktemp -d) || exit 1
processes=()

cleanup() {
    local process
    for process in ${processes[@]+"${processes[@]}"}; do
        end_process "$process"
    done
    router_stop
    rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What a program said, a little to the right.
show() {
    sed 's/^/      /' "$@"
}

fail() {
    local log
    echo "demo: FAILED: $1"
    for log in server.out server.err client.out client.err receiver.err sender.err sender.out router.err; do
        if [ -s "$folder/$log" ]; then
            echo "--- $log"
            tail -n 50 "$folder/$log" | show
        fi
    done
    exit 1
}

# Words FILE: a whole line in FILE has them.
has_line() {
    grep -q "$1" "$2" 2>/dev/null
}

# What is awaited has come, or the program that should say it has ended.
has_line_or_end() {
    has_line "$1" "$2" || ! kill -0 "$3" 2>/dev/null
}

has_ended() {
    ! kill -0 "$1" 2>/dev/null
}

await_line() {
    wait_until "$1" has_line_or_end "$2" "$3" "$4" && has_line "$2" "$3"
}

address_in() {
    grep -o '[a-z2-7]*\.b32\.i2p' "$1" | head -n 1
}

case ${1:-auto} in
netbox | i2pd) echo "Starting the $1 routers. They are real ones, on a network of their own on this machine." ;;
esac
router_start "${1:-auto}" "$folder"
case $? in
0) ;;
77)
    echo "demo: FAILED: ${1:-auto} is not installed"
    exit 1
    ;;
*) fail "${1:-auto} does not start" ;;
esac

# On real routers it takes time to find each other, and bulk data is slow.
if [ "$real" = 1 ]; then
    size=65536 limit=300 attempts=4
else
    size=1048576 limit=60 attempts=1
fi

case $router in
bridge) echo "Router: the loopback bridge of this project. It speaks SAM like a router, but stays on this machine." ;;
*) echo "Router: $router" ;;
esac
if [ "$sam_a" = "$sam_b" ]; then
    echo "        Both programs talk to it at $sam_a."
else
    echo "        One program talks to the router at $sam_a, the other to the one at $sam_b."
fi

echo
echo "1. A server gets an address on I2P, and waits for somebody to connect."
timeout $((limit * 3)) "$bin/server" --sam "$sam_a" ${settings[@]+"${settings[@]}"} \
    >"$folder/server.out" 2>"$folder/server.err" &
processes+=($!)
await_line "$limit" '^Server address: ' "$folder/server.out" $! || fail "the server got no address"
show "$folder/server.out"
address=$(address_in "$folder/server.out")

echo
echo "2. A client, another process with an address of its own, connects to it, says \"Hello, there!\" and gets an answer."
for ((attempt = 1; ; attempt++)); do
    if timeout "$limit" "$bin/client" --sam "$sam_b" ${settings[@]+"${settings[@]}"} "$address" \
        >"$folder/client.out" 2>"$folder/client.err"; then
        break
    fi
    [ "$attempt" -lt "$attempts" ] || fail "the client got no answer"
    echo "   The peer was not reached yet; once more."
    sleep 3
done
echo "   The client:"
show "$folder/client.out"
grep -q '^Answer: Hello, how are you?$' "$folder/client.out" || fail "that was another answer"
await_line "$limit" 'Received a message from .*: Hello, there!$' "$folder/server.out" "${processes[0]}" ||
    fail "the server saw no message"
echo "   The server:"
grep '^Received' "$folder/server.out" | tail -n 1 | show
end_process "${processes[0]}"
processes=()

# The receiving end: takes so many bytes, says what it got, and stays until the stream ends.
digest() {
    head -c "$size" >"$folder/received"
    printf '%s bytes, SHA-256 %s\n' "$(wc -c <"$folder/received")" "$(sha256sum <"$folder/received" | cut -c 1-64)"
    cat >/dev/null
}

# The sending end: its input goes on until the answer is there, so that it does not close before.
feed() {
    cat "$folder/data"
    wait_until "$limit" has_line SHA-256 "$folder/sender.out"
}

# One try to send the file; 0 if the answer has come.
transfer() {
    local receiver sender result
    rm -f "$folder/arriving" "$folder/answer" "$folder/leaving" "$folder"/receiver.* "$folder"/sender.*
    mkfifo "$folder/arriving" "$folder/answer" "$folder/leaving" || return 1
    timeout $((limit * 3)) "$bin/i2pcat" -l -v --sam "$sam_a" ${settings[@]+"${settings[@]}"} \
        >"$folder/arriving" 2>"$folder/receiver.err" <"$folder/answer" &
    receiver=$!
    digest <"$folder/arriving" >"$folder/answer" &
    processes=("$receiver" $!)
    await_line "$limit" '^Listening on ' "$folder/receiver.err" "$receiver" || return 1
    feed >"$folder/leaving" 2>/dev/null &
    processes+=($!)
    timeout $((limit * 2)) "$bin/i2pcat" -v -q 1 --sam "$sam_b" ${settings[@]+"${settings[@]}"} \
        "$(address_in "$folder/receiver.err")" <"$folder/leaving" >"$folder/sender.out" 2>"$folder/sender.err" &
    sender=$!
    processes+=("$sender")
    wait "$sender" && grep -q SHA-256 "$folder/sender.out"
    result=$?
    if [ "$result" = 0 ]; then
        # The receiver sees the end of the stream and ends by itself.
        wait_until "$limit" has_ended "$receiver" && wait "$receiver"
        result=$?
    fi
    return "$result"
}

head -c "$size" /dev/urandom >"$folder/data"
echo
echo "3. i2pcat, netcat for I2P, sends a file of $size random bytes to another i2pcat, whose user answers with what"
echo "   arrived. Only then does the sender close the stream."
for ((attempt = 1; ; attempt++)); do
    transfer && break
    [ "$attempt" -lt "$attempts" ] || fail "the file did not go over"
    echo "   The stream broke off or was not there yet; once more."
    for process in "${processes[@]}"; do
        end_process "$process"
    done
    processes=()
    sleep 3
done
expected="$size bytes, SHA-256 $(sha256sum <"$folder/data" | cut -c 1-64)"
printf 'sent:     %s\nreceived: %s\n' "$expected" "$(cat "$folder/sender.out")" | show
[ "$(cat "$folder/sender.out")" = "$expected" ] || fail "that is not what was sent"

echo
echo "demo: OK over $router"

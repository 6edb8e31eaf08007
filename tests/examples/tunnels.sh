# The checks of examples-c/tunnel.c: a web server and a web client of this machine, with I2P between them. For run.sh.

# Whatever comes to this server it does not read, unless the first byte is "e": then it sends everything back.
# shellcheck disable=SC2034
deaf_target='
import socket, threading
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
listener.bind(("127.0.0.1", 0))
listener.listen(200)
print("port", listener.getsockname()[1], flush=True)
kept = []
def echo(peer):
    try:
        while data := peer.recv(65536):
            peer.sendall(data)
    except OSError:
        pass
    peer.close()
def serve(peer):
    if peer.recv(1) == b"e":
        echo(peer)
    else:
        kept.append(peer)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
'

# flood PORT PROCESS...: 100 connections that write as much as they can, up to 2 MiB each and the first up to 256 MiB, which it
# must not get rid of; then one that is answered; then waits for the end of its input. The processes are those that carry it.
# shellcheck disable=SC2016
flood='
import os, select, socket, sys
def at_rest():
    for process in sys.argv[2:]:
        for task in os.listdir("/proc/%s/task" % process):
            try:
                if open("/proc/%s/task/%s/stat" % (process, task)).read().rsplit(")", 1)[1].split()[0] in "RD":
                    return False
            except FileNotFoundError:
                pass
    return True
address = ("127.0.0.1", int(sys.argv[1]))
flooding, sent = [], 0
for _ in range(100):
    peer = socket.create_connection(address)
    peer.setblocking(False)
    flooding.append(peer)
left = {peer: 1 << 21 for peer in flooding}
left[flooding[0]] = 1 << 28
# So often in a row nobody has taken anything, and nobody was about to.
still = 0
while left and still < 20:
    ready = select.select([], list(left), [], 0.05)[1]
    still = still + 1 if not ready and at_rest() else 0
    for peer in ready:
        try:
            count = peer.send(bytes(min(left[peer], 65536)))
        except BlockingIOError:
            continue
        sent += count
        left[peer] -= count
        if left[peer] == 0:
            del left[peer]
if flooding[0] not in left:
    sys.exit("nothing stops who writes")
print("flooded", sent >> 20, flush=True)
peer = socket.create_connection(address)
peer.settimeout(120)
peer.sendall(b"e")
for round in range(20):
    data = bytes([round]) * 50000
    peer.sendall(data)
    back = b""
    while len(back) < len(data):
        back += peer.recv(65536) or sys.exit("the end")
    if back != data:
        sys.exit("other bytes came back")
print("answered", flush=True)
sys.stdin.read()
'

# As example, for the background: the process is that of timeout, which passes signals on, and makes sure that they work.
run_tunnel() {
    exec timeout -k 100 900 ${under[@]+"${under[@]}"} "$bin/tunnel" "$@" "${settings[@]}"
}

own_web_folder() {
    own_folder && mkdir web || return 1
    trap end_all EXIT
}

# make_files LARGEST: twenty files from nothing to LARGEST bytes.
make_files() {
    local i
    for ((i = 0; i < 20; i++)); do
        head -c $(($1 * i * i * i / (19 * 19 * 19))) /dev/urandom >"web/$i" || return 1
    done
}

# start_web [PORT]: a web server with the files; $web is its process, $web_port its port.
start_web() {
    : >web.out
    python3 -u -m http.server --bind 127.0.0.1 --directory web "${1:-0}" >web.out 2>web.err &
    web=$!
    wait_until 60 has_line '^Serving HTTP ' web.out || { cat web.err; return 1; }
    web_port=$(sed -n 's/^Serving HTTP .* port \([0-9]*\) .*/\1/p' web.out)
}

# start_tunnels TARGET OPTION...: the options are those of both. $near is where to connect to.
start_tunnels() {
    local target=$1
    shift
    run_tunnel server --sam "$sam_a" "$@" - "$target" >server.out 2>server.err &
    server=$!
    wait_until 200 has_line '^Server address: ' server.out || { cat server.err; return 1; }
    run_tunnel client --sam "$sam_b" "$@" 0 "$(address_in server.out)" >client.out 2>client.err &
    client=$!
    wait_until 200 has_line '^Listening on ' client.out || { cat client.err; return 1; }
    near=$(sed -n 's/^Listening on //p' client.out)
}

# get URL FILE: with curl if that is there.
get() {
    if has curl; then
        curl --silent --show-error --fail --noproxy '*' --max-time 120 --output "$2" "$1"
    else
        python3 -c '
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
open(sys.argv[2], "wb").write(opener.open(sys.argv[1], timeout=120).read())' "$1" "$2"
    fi
}

# get_and_compare FILE NUMBER ATTEMPTS
get_and_compare() {
    local attempt
    for ((attempt = 1; attempt <= $3; attempt++)); do
        rm -f "got.$2"
        : >"got.$2" # curl makes no file for an answer without a byte
        if get "http://$near/$1" "got.$2"; then
            # What came must be right, however often it takes until something comes.
            cmp "web/$1" "got.$2" && rm "got.$2" && return 0
            return 1
        fi
    done
    return 1
}

# web_requests COUNT LARGEST ATTEMPTS: so many requests, eight at a time, each of which gets so many attempts.
web_requests() {
    local i failed=0 running=()
    own_web_folder && make_files "$2" && start_web && start_tunnels "127.0.0.1:$web_port" || return 1
    # Real routers may need a while until they find each other.
    wait_until 120 get_and_compare 1 first 1 || { cat client.err server.err; return 1; }
    for ((i = 0; i < $1; i++)); do
        if [ "${#running[@]}" = 8 ]; then
            wait "${running[0]}" || failed=$((failed + 1))
            running=("${running[@]:1}")
        fi
        get_and_compare $((i % 20)) "$i" "$3" &
        running+=($!)
    done
    for i in "${running[@]}"; do
        wait "$i" || failed=$((failed + 1))
    done
    [ "$failed" = 0 ] || { echo "$failed of $1 requests failed"; tail client.err server.err web.err; return 1; }
    [ "$3" != 1 ] || ! grep 'a connection:' client.err server.err || return 1
    end_tunnel "$client" && end_tunnel "$server"
}

tunnel_ended() {
    ! kill -0 "$1" 2>/dev/null
}

# A signal ends a tunnel in good order.
end_tunnel() {
    kill -TERM "$1" && wait_until 90 tunnel_ended "$1" || { echo "the tunnel goes on"; return 1; }
    expect 0 wait "$1" || { cat client.err server.err; return 1; }
}

all_have_begun() {
    local i
    for i in 1 2 3 4 5 6 7 8; do
        [ -s "got.$i" ] || return 1
    done
}

# tunnel_ends_amid_downloads server|client: which of the two is ended.
tunnel_ends_amid_downloads() {
    local i getting=()
    own_web_folder && truncate -s 1G web/large && start_web && start_tunnels "127.0.0.1:$web_port" || return 1
    for i in 1 2 3 4 5 6 7 8; do
        curl --silent --noproxy '*' --limit-rate 2M --no-buffer --output "got.$i" "http://$near/large" &
        getting+=($!)
    done
    wait_until 60 all_have_begun || { cat client.err server.err; return 1; }
    case $1 in
    server) end_tunnel "$server" ;;
    client) end_tunnel "$client" ;;
    esac || return 1
    for i in "${getting[@]}"; do
        wait_until 60 tunnel_ended "$i" || { echo "a download goes on"; return 1; }
        # Whoever was downloading knows that something is missing.
        ! wait "$i" || { echo "a download ended as if it were complete"; return 1; }
    done
    cat client.err server.err
}

# Nothing listens behind the tunnel; then something does.
target_comes_back() {
    own_web_folder && make_files 1000 && start_web && start_tunnels "127.0.0.1:$web_port" && get_and_compare 5 1 1 ||
        return 1
    end_process "$web"
    ! get "http://$near/5" got 2>get.err || { echo "something was there"; return 1; }
    cat get.err
    wait_until 60 has_line 'tunnel: a connection: cannot connect to the target: ' server.err || { cat server.err; return 1; }
    start_web "$web_port" && get_and_compare 5 2 1 && end_tunnel "$client" && end_tunnel "$server"
}

# Kilobytes of memory of a process.
memory_of() {
    awk '/^VmRSS:/ { print $2; found = 1 } END { exit !found }' "/proc/$1/status"
}

# deaf_targets LIMIT OPTION...: a hundred connections whose target does not read cost each tunnel less than LIMIT kB of memory
# (pipes and sockets are not in there), and the others go on.
deaf_targets() {
    local limit=$1 target near_end far_end server_before client_before server_after client_after
    shift
    own_web_folder || return 1
    python3 -c "$deaf_target" >target.out &
    target=$!
    wait_until 60 has_line '^port ' target.out || return 1
    start_tunnels "127.0.0.1:$(sed -n 's/^port //p' target.out)" "$@" || return 1
    mkfifo flooding || return 1
    far_end=$(program_of "$server" tunnel) && near_end=$(program_of "$client" tunnel) || return 1
    server_before=$(memory_of "$far_end") && client_before=$(memory_of "$near_end") || return 1
    python3 -c "$flood" "${near##*:}" "$near_end" "$router_pid" "$far_end" "$target" <flooding >flood.out 2>flood.err &
    exec 7>flooding
    wait_until 200 has_line '^answered' flood.out || { cat flood.out flood.err client.err server.err; return 1; }
    server_after=$(memory_of "$far_end") && client_after=$(memory_of "$near_end") || return 1
    cat flood.out
    echo "kB before and after: server $server_before, $server_after; client $client_before, $client_after"
    # Otherwise there was nothing that could have piled up.
    [ "$(sed -n 's/^flooded //p' flood.out)" -ge 40 ] || return 1
    [ $((server_after - server_before)) -lt "$limit" ] && [ $((client_after - client_before)) -lt "$limit" ] ||
        { echo "that is too much"; return 1; }
    exec 7>&-
    end_tunnel "$client" && end_tunnel "$server"
}

# A connection on which nothing happens is ended, and counted. There may be two: the two tunnels have the same limit.
idle_connections_end() {
    local rest
    own_web_folder && start_web && start_tunnels "127.0.0.1:$web_port" --set idle_timeout=60000 --idle-timeout 1 || return 1
    exec 5<>"/dev/tcp/${near%:*}/${near##*:}" || return 1
    # The web server waits for a request.
    expect 1 read -r -t 60 rest <&5 || { echo "it goes on"; return 1; }
    exec 5>&-
    end_tunnel "$client" && end_tunnel "$server" || return 1
    cat client.err server.err | grep -q '1 of 1 connections were ended by a time limit'
}

tunnel_usage() {
    expect 2 example 60 tunnel server --sam "$sam_a" - nonsense || return 1
    expect 2 example 60 tunnel client --sam "$sam_a" nonsense a.i2p || return 1
    # A port that is taken.
    expect 1 example 60 tunnel client --sam "$sam_a" "$sam_a" a.i2p || return 1
    expect 0 eval 'example 60 tunnel --help | grep -q "firewall"'
}

# A signal also ends a tunnel that is not there yet.
tunnel_ends_before_it_is_there() {
    own_web_folder || return 1
    run_tunnel server --sam "$sam_a" - 1 >server.out 2>server.err &
    server=$!
    wait_until 60 has_line 'building tunnels' server.err || return 1
    ! has_line . server.out || return 1
    : >client.err
    end_tunnel "$server"
}

# As at boot: the programs are there before the router. They come up by themselves, and one that does not wait fails at once.
started_before_the_router() {
    own_web_folder || return 1
    router_kill || return 1
    run_tunnel server --wait 120 --sam "$sam_a" - 1 >server.out 2>server.err &
    server=$!
    "$bin/server" --wait 120 --sam "$sam_a" --keys "$PWD/keys" --name early >named.out 2>named.err &
    named=$!
    expect 1 example 60 lookup --sam "$sam_a" nosuch.i2p
    router_restart || return 1
    wait_until 60 has_line '^Server address: ' named.out && wait_until 60 has_line . server.out || return 1
    end_process "$named"
    end_tunnel "$server"
    # This one is not known to whoever started the first.
    router_stop
}

# For each router: tunnels COUNT LARGEST ATTEMPTS.
tunnels() {
    if has python3; then
        check "tunnels over $called: $1 requests to a web server" web_requests "$@"
    else
        skip "python3 is not installed: there is no web server for tunnels"
    fi
}

tunnels_over_the_bridge() {
    tunnels 1000 300000 1
    has python3 || return
    check "tunnels: the target goes and comes back" target_comes_back
    check "tunnels: idle connections end" idle_connections_end
    if has curl; then
        check "tunnels: the server's ends amid downloads" tunnel_ends_amid_downloads server
        check "tunnels: the client's ends amid downloads" tunnel_ends_amid_downloads client
    else
        skip "curl is not installed: tunnels are not ended amid downloads"
    fi
    # Some kernels give memory in pieces of 2 MiB.
    check "tunnels: memory when targets do not read" deaf_targets 4500
    # 100 connections of 131072 bytes.
    check "tunnels: memory when targets do not read, without splice" deaf_targets 16000 --set splice=0
    check "tunnels: wrong usage" tunnel_usage
}

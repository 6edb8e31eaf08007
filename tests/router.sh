# For bash scripts: starts the router that programs are to talk over, and ends it again. To be sourced.
#
#   router_start NAME FOLDER   NAME is bridge, netbox, i2pd or auto: the router of this machine, if one answers, else the
#                              bridge. BRIDGE_OPTIONS may say more to the bridge, I2PD_OPTIONS to tests/i2pd/run.sh. Returns
#                              77 if that router is not installed.
#   router_stop
#   router_kill                ends it without a chance to say goodbye (bridge, i2pd). For one with the same ports and data
#                              router_start comes next, with options that say so, and another folder
#
# After router_start:
#   router      name of the router, as it is to be called
#   sam_a sam_b HOST:PORT of two bridges; of two routers, where there are several
#   udp_a udp_b HOST:PORT where these bridges take datagrams
#   settings    array of --set KEY=VALUE: what destinations need on this router
#   real        1 if these are real routers: connecting may take several attempts, and bulk data is slow

router_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
router_pid=
router_keeper=

# wait_until SECONDS COMMAND...: until the command succeeds.
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# Ends a process of ours and waits for it.
end_process() {
    if [ -n "$1" ]; then
        kill "$1" 2>/dev/null
        wait "$1" 2>/dev/null
    fi
    return 0
}

# Whether a SAM bridge answers at HOST PORT.
sam_answers() {
    # shellcheck disable=SC2016
    timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1" && printf "HELLO VERSION MIN=3.1 MAX=3.3\n" >&3 && read -r line <&3 &&
        [[ $line == "HELLO REPLY "* ]]' "$1" "$2" 2>/dev/null
}

router_ended() {
    ! kill -0 "$router_pid" 2>/dev/null
}

router_is_up() {
    grep -q "^$1" "$2" || router_ended
}

router_start() {
    local folder=$2 ready=READY limit=120 command ports
    router=$1 settings=() real=1 sam_a= sam_b= udp_a= udp_b=
    if [ "$router" = auto ]; then
        if sam_answers 127.0.0.1 7656; then
            router='router at 127.0.0.1:7656'
            sam_a=127.0.0.1:7656 sam_b=127.0.0.1:7656 udp_a=127.0.0.1:7655 udp_b=127.0.0.1:7655
            return 0
        fi
        router=bridge
    fi
    case $router in
    bridge)
        # shellcheck disable=SC2206
        command=("$router_root/target/release/i2psock-bridge" --port 0 ${BRIDGE_OPTIONS:-})
        ready=SAM limit=20 real=0
        ;;
    netbox)
        command=("$router_root/target/netbox/release/netbox")
        settings=(--set inbound.length=1 --set outbound.length=1)
        ;;
    i2pd)
        # shellcheck disable=SC2206
        command=("$router_root/tests/i2pd/run.sh" ${I2PD_OPTIONS:-})
        settings=(--set inbound.length=0 --set outbound.length=0 --set inbound.quantity=1 --set outbound.quantity=1
            --set i2cp.leaseSetType=1 --set i2cp.leaseSetEncType=0)
        ;;
    *)
        echo "there is no router \"$router\": auto, bridge, netbox or i2pd" >&2
        return 1
        ;;
    esac
    if [ ! -x "${command[0]}" ]; then
        echo "${command[0]} is missing" >&2
        return 77
    fi
    # These programs end when their standard input does, and that ends with this script, however it ends.
    mkfifo "$folder/router.in" && : >"$folder/router.out" || return 1
    tail --pid=$$ -f /dev/null >"$folder/router.in" &
    router_keeper=$!
    "${command[@]}" <"$folder/router.in" >"$folder/router.out" 2>"$folder/router.err" &
    router_pid=$!
    if ! wait_until "$limit" router_is_up "$ready" "$folder/router.out" || ! grep -q "^$ready" "$folder/router.out"; then
        local status=1
        if router_ended; then
            wait "$router_pid"
            status=$?
            [ "$status" = 0 ] && status=1
        fi
        cat "$folder/router.out" "$folder/router.err" >&2
        router_stop
        return "$status"
    fi
    mapfile -t ports < <(sed -n 's/^SAM \([0-9]*\).*/127.0.0.1:\1/p' "$folder/router.out")
    sam_a=${ports[0]}
    sam_b=${ports[1]:-$sam_a}
    mapfile -t ports < <(sed -n 's/^SAM [0-9]* \([0-9]*\).*/127.0.0.1:\1/p' "$folder/router.out")
    udp_a=${ports[0]}
    udp_b=${ports[1]:-$udp_a}
}

router_stop() {
    end_process "$router_keeper"
    if [ -n "$router_pid" ]; then
        # With its input gone it ends by itself, and cleans up after itself.
        wait_until 15 router_ended
        end_process "$router_pid"
    fi
    router_keeper='' router_pid=''
}

router_kill() {
    local victim=$router_pid
    if [ "$router" = i2pd ]; then
        # Its script, which only looks after it, ends then, too.
        victim=$(pgrep -P "$router_pid" -x i2pd) || return 1
    fi
    kill -KILL "$victim" || return 1
    router_stop 2>/dev/null
}

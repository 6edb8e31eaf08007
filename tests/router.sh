# For bash scripts: starts the router that programs are to talk over, and ends it again. To be sourced.
#
#   scratch                    makes an empty folder, $folder, which goes when the script ends, however it ends; the router and
#                              what is told to at_end end before
#   at_end COMMAND...          one more thing to be done then; the last one is done first
#
#   router_start NAME FOLDER   NAME is bridge, netbox, i2pd, i2pd-net (a network of the i2pd that fetch.sh has put into the
#                              folder $I2PD) or auto: the router of this machine, if one answers, else the bridge.
#                              BRIDGE_OPTIONS may say more to the bridge. Returns 77 if that router is not installed.
#   router_stop
#   router_kill                ends the router without a warning (KILL), all of them where there are several, and waits until
#                              they are gone
#   router_restart             starts it again on the same ports; i2pd also with the same data, netbox with new routers
#   i2pd_tell COMMAND WHICH    one of the commands of i2pd/run.sh, for i2pd and i2pd-net
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
router_command=
router_folder=
router_ready=
router_limit=

at_ends=()

scratch() {
    folder=$(mktemp -d) || exit 1
    trap end_everything EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

at_end() {
    local command
    printf -v command '%q ' "$@"
    at_ends=("$command" ${at_ends[@]+"${at_ends[@]}"})
}

end_everything() {
    local command
    for command in ${at_ends[@]+"${at_ends[@]}"}; do
        eval "$command"
    done
    router_stop
    rm -rf "$folder"
}

# has_line WORDS FILE: a line of the file has them.
has_line() {
    grep -q "$1" "$2" 2>/dev/null
}

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

# Runs router_command until it is ready.
router_run() {
    local folder=$router_folder
    : >"$folder/router.out" || return 1
    # These programs end when their standard input does, and that ends with this script, however it ends. tail also ends
    # when nobody reads any more, so that each run needs one of its own.
    end_process "$router_keeper"
    tail --pid=$$ -f /dev/null >"$folder/router.in" &
    router_keeper=$!
    "${router_command[@]}" <"$folder/router.in" >"$folder/router.out" 2>"$folder/router.err" &
    router_pid=$!
    if ! wait_until "$router_limit" router_is_up "$router_ready" "$folder/router.out" ||
        ! grep -q "^$router_ready" "$folder/router.out"; then
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
}

router_start() {
    local ports
    router=$1 settings=() real=1 sam_a='' sam_b='' udp_a='' udp_b=''
    router_folder=$2 router_ready=READY router_limit=300
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
        router_command=("$router_root/target/release/i2psock-bridge" --port 0 ${BRIDGE_OPTIONS:-})
        router_ready=SAM router_limit=60 real=0
        ;;
    netbox)
        router_command=("$router_root/target/netbox/release/netbox")
        settings=(--set inbound.length=1 --set outbound.length=1)
        ;;
    i2pd)
        router_command=("$router_root/tests/i2pd/run.sh")
        settings=(--set inbound.length=0 --set outbound.length=0 --set inbound.quantity=1 --set outbound.quantity=1
            --set i2cp.leaseSetType=1 --set i2cp.leaseSetEncType=0)
        ;;
    i2pd-net)
        router_command=("$router_root/tests/i2pd/run.sh" --i2pd "${I2PD:?}/i2pd" --routers 4)
        settings=(--set inbound.length=1 --set outbound.length=1)
        ;;
    *)
        echo "there is no router \"$router\": auto, bridge, netbox, i2pd or i2pd-net" >&2
        return 1
        ;;
    esac
    if [ ! -x "${router_command[0]}" ]; then
        echo "${router_command[0]} is missing" >&2
        return 77
    fi
    mkfifo "$router_folder/router.in" || return 1
    router_run || return
    mapfile -t ports < <(sed -n 's/^SAM \([0-9]*\).*/127.0.0.1:\1/p' "$router_folder/router.out")
    sam_a=${ports[0]}
    sam_b=${ports[1]:-$sam_a}
    mapfile -t ports < <(sed -n 's/^SAM [0-9]* \([0-9]*\).*/127.0.0.1:\1/p' "$router_folder/router.out")
    udp_a=${ports[0]}
    udp_b=${ports[1]:-$udp_a}
}

i2pd_tell() {
    local before
    before=$(grep -c '^DONE\|^FAILED' "$router_folder/router.out")
    # For reading too, since otherwise this would wait for somebody who reads.
    echo "$1 $2" 1<>"$router_folder/router.in"
    wait_until 100 i2pd_answers "$before" && [ "$(grep '^DONE\|^FAILED' "$router_folder/router.out" | tail -n 1)" = DONE ]
}

i2pd_answers() {
    [ "$(grep -c '^DONE\|^FAILED' "$router_folder/router.out")" -gt "$1" ] || router_ended
}

router_kill() {
    case $router in
    i2pd | i2pd-net)
        i2pd_tell kill all
        return
        ;;
    esac
    # So that the shell does not report it.
    disown "$router_pid"
    kill -KILL "$router_pid" || return 1
    wait_until 60 router_ended || return 1
    router_pid=
}

router_restart() {
    local ports
    case $router in
    bridge) router_command+=(--port "${sam_a##*:}" --udp-port "${udp_a##*:}") ;;
    netbox)
        ports=$(sed -n 's/^SAM \([0-9]*\) \([0-9]*\).*/\1:\2/p' "$router_folder/router.out" | paste -sd,)
        router_command+=(--ports "$ports")
        ;;
    i2pd | i2pd-net)
        i2pd_tell start all
        return
        ;;
    *) return 1 ;;
    esac
    router_run
}

router_stop() {
    end_process "$router_keeper"
    if [ -n "$router_pid" ]; then
        # With its input gone it ends by itself, and cleans up after itself.
        wait_until 30 router_ended
        end_process "$router_pid"
    fi
    router_keeper='' router_pid=''
}

# For scripts that run the programs of examples-c, after steps.sh. To be sourced.

# shellcheck disable=SC2154
bin=$root/target/examples-c
# A program that was stopped and may still be. (No function's own: a trap sees none of these any more.)
stopped=

# A new folder to work in. (Not by the number of the process: these come again.)
own_folder() {
    local own
    # shellcheck disable=SC2154
    own=$(mktemp -d "$folder/own.XXXXXXXX") && cd "$own" || return 1
}

end_all() {
    local job
    [ -z "$stopped" ] || kill -CONT "$stopped"
    for job in $(jobs -p); do
        end_process "$job"
    done
}

address_in() {
    grep -o '[a-z2-7]*\.b32\.i2p' "$1" | head -n 1
}

# A router of this check alone, which can be killed and started anew.
start_own_router() {
    # Not that of the other checks.
    router_keeper='' router_pid=''
    mkdir router && trap 'end_all; router_stop' EXIT || return 1
    BRIDGE_OPTIONS='' router_start "$1" router
}

# called ROUTER: its name for the names of checks, with the version where there are several.
called() {
    case $1 in
    i2pd) PATH=$PATH:/usr/sbin i2pd_called i2pd i2pd ;;
    i2pd-net) i2pd_called "${I2PD:?}/i2pd" 'a network of i2pd' ;;
    *) echo "$1" ;;
    esac
}

i2pd_called() { # program, name
    echo "$2$("$1" --version 2>/dev/null | sed -n '1s/^i2pd version\( [^ ]*\).*/\1/p')"
}

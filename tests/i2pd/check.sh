#!/usr/bin/env bash
# Everything over i2pd: the example programs, and servers that end or lose their router. Three versions of it: the one that is
# installed (that of Debian 12 is 2.45.1, and runs alone), and networks of those of Debian 13 and of Debian unstable.
set -u

# shellcheck source=../steps.sh
. "$(dirname "$0")/../steps.sh"

fetched=$root/target/i2pd
kinds=()

if has i2pd || [ -x /usr/sbin/i2pd ]; then
    kinds+=(i2pd)
else
    skip "i2pd is not installed"
fi

if "$root/tests/i2pd/fetch.sh" trixie "$fetched/trixie"; then
    kinds+=(trixie)
else
    skip "there is no i2pd of Debian 13"
fi

# Unstable is what it is today: not even CI can rely on it.
if "$root/tests/i2pd/fetch.sh" sid "$fetched/sid" &&
    timeout --foreground 300 "$root/tests/i2pd/run.sh" --i2pd "$fetched/sid/i2pd" --routers 4 </dev/null >/dev/null; then
    kinds+=(sid)
else
    CI='' skip "i2pd of Debian unstable does not start here"
fi

# over KIND SCRIPT ARGUMENT...
over() {
    local kind=$1
    shift
    case $kind in
    i2pd) script timeout --foreground 900 "$@" i2pd ;;
    *) I2PD=$fetched/$kind script timeout --foreground 900 "$@" i2pd-net ;;
    esac
}

examples() {
    local kind
    for kind in ${kinds[@]+"${kinds[@]}"}; do
        over "$kind" "$root/tests/examples/run.sh"
    done
}

restarts() {
    local kind
    for kind in ${kinds[@]+"${kinds[@]}"}; do
        over "$kind" "$root/tests/i2pd/restarts.sh"
    done
}

aside examples
aside restarts
finish

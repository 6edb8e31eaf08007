#!/usr/bin/env bash
# Kills a router under two sessions and starts it again on the same ports: do sessions with the same keys come back, and
# do they reach each other? Speaks SAM by itself, so that it tells what the router does and nothing else.
# usage: restart.sh bridge|netbox|i2pd|i2pd-net
set -u

# shellcheck source=router.sh
. "$(dirname "$0")/router.sh"
scratch

die() {
    echo "$*" >&2
    exit 1
}

now() {
    date +%s%N
}

# told SINCE WHAT
told() {
    printf '%-44s %6d ms\n' "$2" $((($(now) - $1) / 1000000))
}

# dial HOST:PORT: a greeted connection in $dialled.
dial() {
    local line
    { exec {dialled}<>"/dev/tcp/${1%:*}/${1##*:}"; } 2>/dev/null || return 1
    printf 'HELLO VERSION MIN=3.1 MAX=3.3\n' >&"$dialled"
    IFS= read -r -t 10 -u "$dialled" line && [[ $line == 'HELLO REPLY RESULT=OK '* ]]
}

hang_up() {
    local fd=$1
    exec {fd}>&-
}

# ask FD LIMIT COMMAND: the reply in $reply.
ask() {
    printf '%s\n' "$3" >&"$1"
    IFS= read -r -t "$2" -u "$1" reply
}

# new_keys HOST:PORT: $public and $private.
new_keys() {
    dial "$1" && ask "$dialled" 30 'DEST GENERATE SIGNATURE_TYPE=7' || die "no keys: ${reply-}"
    public=${reply#* PUB=} public=${public%% *}
    private=${reply#* PRIV=} private=${private%% *}
    hang_up "$dialled"
}

# Both sessions at the same time, their control sockets in $control_a and $control_b.
open_sessions() {
    local since options='' set
    for set in "${settings[@]}"; do
        [ "$set" = --set ] || options+=" $set"
    done
    since=$(now)
    dial "$sam_a" && control_a=$dialled && dial "$sam_b" && control_b=$dialled || die "the bridge does not answer"
    printf 'SESSION CREATE STYLE=STREAM ID=%s DESTINATION=%s%s\n' "a$1" "$private_a" "$options" >&"$control_a"
    printf 'SESSION CREATE STYLE=STREAM ID=%s DESTINATION=%s%s\n' "b$1" "$private_b" "$options" >&"$control_b"
    for control in "$control_a" "$control_b"; do
        IFS= read -r -t 120 -u "$control" reply || die "no session"
        [[ $reply == 'SESSION STATUS RESULT=OK DESTINATION='* ]] || die "${reply%%DESTINATION=*}"
        told "$since" "a session is ready"
    done
}

# A stream from a to b, with bytes both ways.
talk() {
    local since try line accepting connecting
    for try in 1 2 3 4 5; do
        dial "$sam_b" && accepting=$dialled && ask "$accepting" 30 "STREAM ACCEPT ID=b$1" || die "no accept"
        [ "$reply" = 'STREAM STATUS RESULT=OK' ] || die "$reply"
        since=$(now)
        dial "$sam_a" && connecting=$dialled || die "the bridge does not answer"
        if ask "$connecting" 70 "STREAM CONNECT ID=a$1 DESTINATION=$public_b" &&
            [ "$reply" = 'STREAM STATUS RESULT=OK' ] && printf 'there\n' >&"$connecting" &&
            IFS= read -r -t 30 -u "$accepting" line && [ "${line%% *}" = "$public_a" ] &&
            IFS= read -r -t 30 -u "$accepting" line && [ "$line" = there ] && printf 'back\n' >&"$accepting" &&
            IFS= read -r -t 30 -u "$connecting" line && [ "$line" = back ]; then
            told "$since" "connected, there and back, at attempt $try"
            hang_up "$accepting"
            hang_up "$connecting"
            return
        fi
        echo "attempt $try: $reply"
        hang_up "$accepting"
        hang_up "$connecting"
    done
    die "nothing gets through"
}

# Whether the router has closed connection FD.
is_closed() {
    local line
    while IFS= read -r -t 0.1 -u "$1" line; do :; done
    ! IFS= read -r -t 60 -u "$1" line && [ $? -le 128 ]
}

router_start "$1" "$folder" || exit
new_keys "$sam_a"
public_a=$public private_a=$private
new_keys "$sam_a"
public_b=$public private_b=$private
open_sessions 1
talk 1
for round in 2 3; do
    before="$sam_a $sam_b $udp_a $udp_b"
    since=$(now)
    router_kill || die "it does not die"
    told "$since" "gone"
    for control in "$control_a" "$control_b"; do
        is_closed "$control" || die "a control socket is still open"
        hang_up "$control"
    done
    ! dial "$sam_a" || die "somebody still answers"
    since=$(now)
    router_restart || die "it does not start again"
    told "$since" "started again"
    dial "$sam_a" && hang_up "$dialled" && dial "$sam_b" && hang_up "$dialled" || die "the bridge does not answer"
    [ "$(sed -n 's/^SAM \([0-9]*\).*/127.0.0.1:\1/p' "$folder/router.out" | head -n 1)" = "${before%% *}" ] ||
        die "it is at another port"
    open_sessions "$round"
    talk "$round"
done

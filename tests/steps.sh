# For bash scripts that check things: counts, and says what was wrong. To be sourced.
#
#   check NAME COMMAND...   one check: the command succeeds. What it says is shown only if it does not
#   skip WHAT               something is missing on this machine. With CI set that is a failure: there, nothing is optional
#   finish                  ends the script with a line "N passed, M failed, K skipped"

steps_passed=0
steps_failed=0
steps_skipped=0
steps_log=$(mktemp) || exit 1

check() {
    local name=$1
    shift
    # In a process of its own: what it sets is not seen here.
    if ("$@") >"$steps_log" 2>&1 </dev/null; then
        echo "ok: $name"
        steps_passed=$((steps_passed + 1))
    else
        echo "FAILED: $name"
        sed 's/^/    /' "$steps_log"
        steps_failed=$((steps_failed + 1))
        return 1
    fi
}

skip() {
    if [ -n "${CI:-}" ]; then
        echo "FAILED: $1 (CI is set, so that nothing may be left out)"
        steps_failed=$((steps_failed + 1))
    else
        echo "SKIP: $1"
        steps_skipped=$((steps_skipped + 1))
    fi
}

has() {
    command -v "$1" >/dev/null
}

finish() {
    rm -f "$steps_log"
    echo "$steps_passed passed, $steps_failed failed, $steps_skipped skipped"
    [ "$steps_failed" = 0 ]
    exit
}

# For bash scripts that check things: counts, says what was wrong, and keeps the names of what failed. To be sourced; comes
# with router.sh, and with a folder for the script alone, $folder, which goes when the script ends.
#
#   check NAME COMMAND...   one check: the command succeeds. What it says is shown only if it does not
#   good NAME, bad NAME     a check whose outcome is known already
#   good_ones COUNT         so many that succeeded and are not worth a line each
#   skip WHAT               something is missing on this machine. With CI set that is a failure: there, nothing is optional
#   at_end COMMAND...       what is to be done when the script ends, however it ends
#   aside COMMAND...        does all the checks of a command while the script goes on, in a process, with a folder and with a
#                           router of its own
#   script COMMAND...       runs another script of this kind, and counts what it has counted
#   join                    waits for all that is done aside, shows what it said, one after the other, and counts it
#   finish                  ends the script with the names of what failed and a line "N passed, M failed, K skipped"
#
# With CHECK_RESULTS set (tests/check.sh does so) the counts and names go to that file, and the last line is left out.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=router.sh
. "$root/tests/router.sh"

steps_passed=0
steps_skipped=0
steps_failures=()
steps_finished=
steps_aside=()
steps_asides=0
steps_results=${CHECK_RESULTS:-}
# For this script, not for those it runs.
unset CHECK_RESULTS

scratch
at_end end_asides
at_end steps_tell

good() {
    echo "ok: $1"
    good_ones 1
}

good_ones() {
    steps_passed=$((steps_passed + $1))
}

bad() {
    echo "FAILED: $1"
    steps_failures+=("$1")
}

check() {
    local name=$1 log=$folder/steps.log
    shift
    # In a process of its own: what it sets is not seen here.
    if ("$@") >"$log" 2>&1 </dev/null; then
        good "$name"
    else
        bad "$name"
        sed 's/^/    /' "$log"
        return 1
    fi
}

skip() {
    if [ -n "${CI:-}" ]; then
        bad "$1 (CI is set, so that nothing may be left out)"
    else
        echo "SKIP: $1"
        steps_skipped=$((steps_skipped + 1))
    fi
}

has() {
    command -v "$1" >/dev/null
}

aside() {
    local own=$folder/aside$((++steps_asides))
    (
        folder=$own at_ends=() router_pid='' router_keeper=''
        steps_results=$own.results steps_passed=0 steps_skipped=0 steps_failures=() steps_aside=()
        trap end_everything EXIT
        at_end steps_tell
        mkdir "$own" && "$@"
        steps_finished=1
        exit 0
    ) >"$own.said" 2>&1 </dev/null &
    steps_aside+=("$! $own")
}

end_asides() {
    local one
    for one in ${steps_aside[@]+"${steps_aside[@]}"}; do
        end_process "${one%% *}"
    done
}

# Counts what another process has written down.
steps_count() {
    local what rest
    while IFS=' ' read -r what rest; do
        case $what in
        passed) good_ones "$rest" ;;
        skipped) steps_skipped=$((steps_skipped + rest)) ;;
        failed) steps_failures+=("$rest") ;;
        esac
    done <"$1"
}

script() {
    local results=$folder/script.results
    rm -f "$results"
    CHECK_RESULTS=$results "$@"
    if [ -f "$results" ]; then
        steps_count "$results"
    else
        bad "$*"
    fi
}

join() {
    local one
    for one in ${steps_aside[@]+"${steps_aside[@]}"}; do
        wait "${one%% *}"
        cat "${one#* }.said"
        steps_count "${one#* }.results"
    done
    steps_aside=()
}

steps_tell() {
    [ -n "$steps_results" ] || return 0
    [ -n "$steps_finished" ] || steps_failures+=('the script itself: it did not come to its end')
    {
        echo "passed $steps_passed"
        echo "skipped $steps_skipped"
        [ "${#steps_failures[@]}" = 0 ] || printf 'failed %s\n' "${steps_failures[@]}"
    } >"$steps_results"
}

finish() {
    join
    steps_finished=1
    if [ "${#steps_failures[@]}" -gt 0 ]; then
        echo 'These failed:'
        printf '    %s\n' "${steps_failures[@]}"
    fi
    [ -n "$steps_results" ] || echo "$steps_passed passed, ${#steps_failures[@]} failed, $steps_skipped skipped"
    [ "${#steps_failures[@]}" = 0 ]
    exit
}

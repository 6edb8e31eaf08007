#!/usr/bin/env bash
# Every step of `make check`, all of them, also after a failure; then what failed, by name. usage: check.sh STEP...
# Steps with real routers mostly wait: they are done aside, at the same time as the rest, and shown when they are done.
set -u

root=$(cd "$(dirname "$0")/.." && pwd)
results=$root/target/check
make=${MAKE_COMMAND:-make}
lanes=()
all=("$@")

rm -rf "$results"
mkdir -p "$results" || exit 1

# Each is a group of its own, so that everything ends that was started there.
end_lanes() {
    local lane
    for lane in ${lanes[@]+"${lanes[@]}"}; do
        kill -- "-$lane" 2>/dev/null
    done
}
trap end_lanes EXIT

# count STEP: adds what it has written down.
count() {
    local what rest
    while IFS=' ' read -r what rest; do
        case $what in
        passed) passed=$((passed + rest)) ;;
        skipped) skipped=$((skipped + rest)) ;;
        failed) names+=("check-$1: $rest") ;;
        esac
    done <"$results/$1.results"
}

# How all of it went; also when it is stopped, by whoever has waited for too long.
tell() {
    local step status seconds before steps='' passed=0 skipped=0 names=()
    printf '\nSeconds that the steps took:\n'
    for step in "${all[@]}"; do
        before=${#names[@]}
        [ ! -f "$results/$step.results" ] || count "$step"
        if [ -f "$results/$step.status" ]; then
            read -r status seconds <"$results/$step.status"
            printf '    %-9s %4d\n' "$step" "$seconds"
            if [ "$status" != 0 ] && [ "${#names[@]}" = "$before" ]; then
                names+=("check-$step: the step itself ended with status $status")
            fi
        elif [ "${#names[@]}" = "$before" ]; then
            names+=("check-$step: it has not been done, or not to its end")
        fi
        [ "${#names[@]}" = "$before" ] || steps="$steps check-$step"
    done
    printf '\n%d passed, %d failed, %d skipped\n' "$passed" "${#names[@]}" "$skipped"
    if [ "${#names[@]}" -gt 0 ]; then
        echo 'These failed:'
        printf '    %s\n' "${names[@]}"
        echo "check: FAILED:$steps"
        return 1
    fi
    echo 'check: OK'
}

trap 'exit 130' INT
trap 'tell; exit 143' TERM

# one_step STEP: nothing it says has an influence here, but for what it writes down.
one_step() {
    local begin=$SECONDS status=0
    CHECK_RESULTS=$results/$1.results "$make" -C "$root" --no-print-directory "check-$1" || status=$?
    echo "$status $((SECONDS - begin))" >"$results/$1.status"
}

step_aside() {
    one_step "$1" >"$results/$1.log" 2>&1 </dev/null
    mv "$results/$1.log" "$results/$1.said"
}

# Shows what has been done aside, each step once.
show_aside() {
    local step
    for step in "${aside[@]}"; do
        if [ -f "$results/$step.said" ]; then
            cat "$results/$step.said"
            rm "$results/$step.said"
        fi
    done
}

aside=()
front=()
for step; do
    case $step in
    netbox | i2pd) aside+=("$step") ;;
    *) front+=("$step") ;;
    esac
done

# What several steps use is made before, by one of them.
if [ "${#aside[@]}" -gt 0 ] && "$make" -C "$root" --no-print-directory examples bridge; then
    set -m
    for step in "${aside[@]}"; do
        step_aside "$step" &
        lanes+=("$!")
    done
    set +m
else
    front=("$@")
    aside=()
fi
for step in ${front[@]+"${front[@]}"}; do
    one_step "$step"
    show_aside
done
if [ "${#lanes[@]}" -gt 0 ]; then
    for step in "${aside[@]}"; do
        [ -f "$results/$step.status" ] || printf '\nWaiting for check-%s.\n' "$step"
    done
    wait "${lanes[@]}"
    lanes=()
    show_aside
fi

tell

#!/usr/bin/env bash
# What cargo checks. usage: cargo.sh lint|tests   (`make check-lint`, `make check-rust`)
set -u

# shellcheck source=steps.sh
. "$(dirname "$0")/steps.sh"
cd "$root" || exit 1
cargo=${CARGO:-cargo}

# Whether cargo has that part. It may be there and say that it is not.
has_part() {
    "$cargo" "$1" --version >/dev/null 2>&1
}

lint() {
    if has_part fmt; then
        check "cargo fmt" "$cargo" fmt --all --check
        check "cargo fmt, netbox" "$cargo" fmt --manifest-path tests/netbox/Cargo.toml --check
    else
        skip "cargo fmt is not installed"
    fi
    if has_part clippy; then
        check "cargo clippy" timeout 1200 "$cargo" clippy --workspace --all-targets --locked -- -D warnings
    else
        skip "cargo clippy is not installed"
    fi
}

# All tests run, also after one that fails. Their names are kept as cargo prints them, with that of the program they are in.
tests() {
    local log=$folder/tests.log status
    timeout 2400 "$cargo" test --workspace --locked --no-fail-fast 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    while IFS=' ' read -r result name; do
        case $result in
        ok) good_ones "$name" ;;
        FAILED) steps_failures+=("$name") ;;
        esac
    done < <(awk '
        # "     Running tests/name.rs (target/debug/deps/name-0123456789abcdef)", "   Doc-tests name"
        $1 == "Running" { program = $0; sub(/^.*[\/(]/, "", program); sub(/-[0-9a-f]+\)$/, "", program) }
        $1 == "Doc-tests" { program = "documentation of " $2 }
        /^test result: / { for (i = 1; i < NF; i++) if ($(i + 1) ~ /^passed/) passed += $i }
        /^test .* \.\.\. FAILED/ { name = $0; sub(/^test /, "", name); sub(/ \.\.\. FAILED.*/, "", name); print "FAILED", program ": " name }
        END { print "ok", passed + 0 }' "$log")
    # Something does not compile, or a program of tests died or hung.
    [ "$status" = 0 ] || [ "${#steps_failures[@]}" -gt 0 ] || bad "cargo test ended with status $status"
}

case ${1-} in
lint) lint ;;
tests) tests ;;
*)
    echo 'usage: cargo.sh lint|tests' >&2
    exit 2
    ;;
esac
finish

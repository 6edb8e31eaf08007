#!/usr/bin/env bash
# Builds the C tests in every way a user may (gcc, clang, C++; shared and static library) and runs them, again under
# valgrind. Ends with a line "N passed, M failed, K skipped".
#   tests/c/run.sh [--no-build] [--no-valgrind] [NAME...]     NAME: of test programs, such as stream; all by default
# Environment: CI (set: a missing tool is a failure), JOBS (2), CC (gcc), CXX (g++).
set -u
cd "$(dirname "$0")/../.." || exit 1
root=$PWD
out=$root/target/ctest
jobs=${JOBS:-2}
cc=${CC:-gcc}
cxx=${CXX:-g++}
build=1 valgrind=1
names=()
for arg in "$@"; do
    case $arg in
    --no-build) build=0 ;;
    --no-valgrind) valgrind=0 ;;
    *) names+=("$arg") ;;
    esac
done
all=1
if [ ${#names[@]} -eq 0 ]; then
    names=(recovery stream pending fakebridge dgram dest fork listener named tunnel threads leaks controller options addr_keys keyfiles nulls errors fdtools)
else
    all=0
fi
# What is also run with the static library and with clang's build.
subset=(nulls addr_keys keyfiles dest dgram threads fork listener named tunnel)
warn=(-g -O1 -Wall -Wextra -Wpedantic -Werror)

passed=0 failed=0 skipped=0
good() { passed=$((passed + 1)); echo "ok $*"; }
bad() { failed=$((failed + 1)); echo "FAILED $*"; }
# A missing tool: visible here, a failure where everything must be there.
missing() {
    if [ -n "${CI:-}" ]; then bad "$1 is not installed"; else skipped=$((skipped + 1)); echo "SKIP: $1 is not installed"; fi
}
have() { command -v "$1" > /dev/null 2>&1; }
has() { local word=$1 x; shift; for x in "$@"; do [ "$x" = "$word" ] && return 0; done; return 1; }

if [ $build = 1 ]; then
    cargo build --release || exit 1
    cargo build --release -p i2psock-bridge || exit 1
fi
release=$root/target/release
mkdir -p "$out" || exit 1
# One run at a time: they share the folder.
if have flock; then
    exec 9> "$out/lock"
    flock 9
fi
rm -rf "$out/run"
mkdir -p "$out/run/lib" "$out/run/static" "$out/run/log" "$out/run/tmp" || exit 1
# A copy under the name the linker writes into programs; nobody rebuilds it under a running test.
cp "$release/libi2psock.so" "$out/run/lib/libi2psock.so.0" && ln -s libi2psock.so.0 "$out/run/lib/libi2psock.so" || exit 1
cp "$release/libi2psock.a" "$out/run/static/" || exit 1
cp "$release/i2psock-bridge" "$out/run/" || exit 1
export I2PSOCK_BRIDGE=$out/run/i2psock-bridge I2PSOCK_SO=$out/run/lib/libi2psock.so.0
# Key files of the tests.
export TMPDIR=$out/run/tmp
unset I2P_SAM_ADDRESS

cflags=(-Iinclude) shared=("-L$out/run/lib" -li2psock)
static=("$out/run/static/libi2psock.a" -lpthread -ldl -lm -lrt -lutil -lgcc_s -lc)
if have pkg-config && [ -d target/pkgconfig ]; then
    if text=$(PKG_CONFIG_PATH=target/pkgconfig pkg-config --cflags i2psock) && libs=$(PKG_CONFIG_PATH=target/pkgconfig pkg-config --libs i2psock); then
        read -r -a cflags <<< "$text"
        # Our copy first.
        read -r -a shared <<< "-Wl,-rpath,$out/run/lib $libs"
        good "pkg-config: $text $libs"
        if text=$(PKG_CONFIG_PATH=target/pkgconfig pkg-config --variable=static_libs i2psock) && [ -n "$text" ]; then
            read -r -a static <<< "${text//$release/$out/run/static}"
        fi
    else
        bad "pkg-config does not find i2psock in target/pkgconfig"
    fi
fi
shared+=("-Wl,-rpath,$out/run/lib" -lpthread)

# ---- symbols ----

exported=$(nm -D --defined-only "$release/libi2psock.so" | awk '{ print $NF }' | LC_ALL=C sort)
declared=$(sed -e 's,//.*,,' -e '/^ \*/d' include/i2psock.h | grep -oE '\bi2psock_[a-z0-9_]+\(' | tr -d '(' | LC_ALL=C sort -u)
listed=$(cat tests/symbols.txt)
if [ "$listed" = "$(LC_ALL=C sort -u tests/symbols.txt)" ]; then good "symbols.txt is sorted"; else bad "symbols.txt is not sorted"; fi
if [ "$exported" = "$listed" ]; then good "the library exports what symbols.txt lists, and nothing else"; else
    bad "exported symbols (<) and symbols.txt (>) differ"
    diff <(echo "$exported") <(echo "$listed")
fi
if [ "$declared" = "$listed" ]; then good "the header declares what symbols.txt lists"; else
    bad "the header (<) and symbols.txt (>) differ"
    diff <(echo "$declared") <(echo "$listed")
fi
uncalled="" unnulled=""
for symbol in $listed; do
    grep -qE "\b$symbol\(" tests/c/[a-z]*.c || uncalled="$uncalled $symbol"
    grep -qE "\b$symbol\(" tests/c/nulls.c || unnulled="$unnulled $symbol"
done
if [ -z "$uncalled" ]; then good "every function is called"; else bad "never called:$uncalled"; fi
if [ -z "$unnulled" ]; then good "nulls.c has every function"; else bad "missing in nulls.c:$unnulled"; fi
soname=$(readelf -d "$release/libi2psock.so" | sed -n 's/.*soname: \[\(.*\)\].*/\1/p')
if [ "$soname" = libi2psock.so.0 ]; then good "soname $soname"; else bad "soname is \"$soname\""; fi

# ---- building ----

# COMPILER DIRECTORY LIBRARIES...: builds all the programs.
build_all() {
    local compiler=$1 dir=$out/run/$2 name status=0
    shift 2
    mkdir -p "$dir"
    "$compiler" -std=c99 "${warn[@]}" "${cflags[@]}" -c tests/c/harness.c -o "$dir/harness.o" || return 1
    export compiler dir
    printf '%s\n' "${names[@]}" | xargs -P "$jobs" -I{} "$compiler" -std=c99 "${warn[@]}" "${cflags[@]}" "tests/c/{}.c" "$dir/harness.o" -o "$dir/{}" "$@" || status=1
    return $status
}
if build_all "$cc" shared "${shared[@]}"; then good "C99 with $cc, shared library"; else bad "C99 with $cc, shared library"; fi
if build_all "$cc" static "${static[@]}"; then good "C99 with $cc, static library"; else bad "C99 with $cc, static library"; fi
if [ -f "$out/run/static/nulls" ] && ldd "$out/run/static/nulls" | grep -q libi2psock; then bad "the static programs use the shared library"; fi
if have clang; then
    if build_all clang clang "${shared[@]}"; then good "C99 with clang"; else bad "C99 with clang"; fi
else
    missing clang
fi
if have "$cxx"; then
    if printf '%s\n' harness "${names[@]}" | xargs -P "$jobs" -I{} "$cxx" -x c++ "${warn[@]}" "${cflags[@]}" -fsyntax-only "tests/c/{}.c"; then
        good "C++ with $cxx"
    else
        bad "C++ with $cxx"
    fi
else
    missing "$cxx"
fi
if [ $all = 1 ]; then
    if "$cc" -std=c99 "${warn[@]}" "${cflags[@]}" tests/c/unload.c -o "$out/run/unload" -ldl; then good "unload.c"; else bad "unload.c"; fi
fi

# ---- running ----

list=$out/run/jobs
: > "$list"
job() { echo "$*" >> "$list"; }
if [ $valgrind = 1 ]; then
    if have valgrind; then
        for name in "${names[@]}"; do job "valgrind-$name" env I2PSOCK_TEST_SLOWNESS=3 valgrind -q --vgdb=no --fair-sched=try --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --show-leak-kinds=definite "$out/run/shared/$name"; done
    else
        missing valgrind
    fi
fi
for name in "${names[@]}"; do job "shared-$name" "$out/run/shared/$name"; done
for name in "${subset[@]}"; do
    has "$name" "${names[@]}" || continue
    job "static-$name" "$out/run/static/$name"
    if have clang; then job "clang-$name" "$out/run/clang/$name"; fi
done
[ $all = 1 ] && job "shared-unload" "$out/run/unload"
export out
# The tests have time limits of their own; this one is for what nobody thought of.
xargs -P "$jobs" -L 1 bash -c 'label=$1; shift; start=$SECONDS; timeout -k 5 900 "$@" > "$out/run/log/$label" 2>&1; status=$?
    if [ $status -ne 0 ] && ! grep -q "^FAILED" "$out/run/log/$label"; then echo "FAILED the program (exit $status)" >> "$out/run/log/$label"; fi
    echo "-- $label: $(grep -c "^ok" "$out/run/log/$label") ok, $(grep -c "^FAILED" "$out/run/log/$label") failed, $((SECONDS - start)) s"' _ < "$list" 9>&-

while read -r label _; do
    log=$out/run/log/$label
    passed=$((passed + $(grep -c '^ok' "$log")))
    skipped=$((skipped + $(grep -c '^SKIP' "$log")))
    # What valgrind has seen in a process whose exit status nobody asks for.
    if grep -qE '^==[0-9]+== (Invalid|Conditional|Use of|Syscall param|Mismatched|Source and dest|Argument)' "$log" && ! grep -q '^FAILED' "$log"; then
        echo "FAILED $label: valgrind found errors" >> "$log"
    fi
    bad_here=$(grep -c '^FAILED' "$log")
    failed=$((failed + bad_here))
    grep '^SKIP' "$log"
    if [ "$bad_here" -gt 0 ]; then
        echo "== $label"
        grep -v '^ok' "$log" | head -n 80
    fi
    # A program that says nothing has not run.
    if ! grep -qE '^(ok|FAILED)' "$log"; then bad "$label said nothing"; fi
done < "$list"

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]

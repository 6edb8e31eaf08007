#!/usr/bin/env bash
# Builds the C tests in every way a user may (gcc, clang, C++; shared and static library), runs each once in one of these ways,
# and once under valgrind. `make check-c` runs it; it needs what `make all bridge` makes.
#   tests/c/run.sh [--build] [--no-valgrind] [NAME...]     NAME: of test programs, such as stream; all by default
# Environment: CI (set: a missing tool is a failure), CC, CXX, JOBS: how many run at a time.
set -u

# shellcheck source=../steps.sh
. "$(dirname "$0")/../steps.sh"
cd "$root" || exit 1

out=$root/target/ctest
# Two for each processor: most of the time they wait for each other, or for a limit.
jobs=${JOBS:-$((2 * $(nproc)))}
cc=${CC:-gcc}
cxx=${CXX:-g++}
build='' valgrind=1
# Those that take longest come first.
all=(fakebridge dest tunnel recovery listener named slowstore stream dgram fork threads pending leaks controller options fdtools nulls addr_keys keyfiles errors)
names=()
for arg; do
    case $arg in
    --build) build=1 ;;
    --no-valgrind) valgrind='' ;;
    *) names+=("$arg") ;;
    esac
done
[ "${#names[@]}" -gt 0 ] || names=("${all[@]}" unload)
warnings=(-g -O1 -Wall -Wextra -Wpedantic -Werror)

if [ -n "$build" ]; then
    "${MAKE_COMMAND:-make}" --no-print-directory all bridge || exit 1
fi
release=$root/target/release
mkdir -p "$out" || exit 1
# One run at a time: they share the folder.
if has flock; then
    exec 9>"$out/lock"
    flock 9
fi
rm -rf "$out/run"
mkdir -p "$out/run/lib" "$out/run/static" "$out/run/shared" "$out/run/clang" "$out/run/log" "$out/run/tmp" || exit 1
# A copy under the name the linker writes into programs; nobody rebuilds it under a running test.
cp "$release/libi2psock.so" "$out/run/lib/libi2psock.so.0" && ln -s libi2psock.so.0 "$out/run/lib/libi2psock.so" || exit 1
cp "$release/libi2psock.a" "$out/run/static/" || exit 1
cp "$release/i2psock-bridge" "$out/run/" || exit 1
export I2PSOCK_BRIDGE=$out/run/i2psock-bridge I2PSOCK_SO=$out/run/lib/libi2psock.so.0
# Key files of the tests.
export TMPDIR=$out/run/tmp
unset I2P_SAM_ADDRESS

# ---- symbols ----

same_lines() {
    diff <(echo "$1") <(echo "$2")
}

# Which of the functions stand in none of the files: missing_in FILE...
missing_in() {
    local symbol
    for symbol in $listed; do
        grep -qE "\b$symbol\(" "$@" || echo "$symbol"
    done
}

symbols() {
    local exported declared listed soname
    exported=$(nm -D --defined-only "$release/libi2psock.so" | awk '{ print $NF }' | LC_ALL=C sort)
    declared=$(sed -e 's,//.*,,' -e '/^ \*/d' include/i2psock.h | grep -oE '\bi2psock_[a-z0-9_]+\(' | tr -d '(' | LC_ALL=C sort -u)
    listed=$(cat tests/symbols.txt)
    soname=$(readelf -d "$release/libi2psock.so" | sed -n 's/.*soname: \[\(.*\)\].*/\1/p')
    check "symbols.txt is sorted" same_lines "$listed" "$(LC_ALL=C sort -u tests/symbols.txt)"
    check "the library exports what symbols.txt lists, and nothing else" same_lines "$exported" "$listed"
    check "the header declares what symbols.txt lists" same_lines "$declared" "$listed"
    check "every function is called" same_lines "$(missing_in tests/c/[a-z]*.c)" ''
    check "nulls.c has every function" same_lines "$(missing_in tests/c/nulls.c)" ''
    check "soname" same_lines "$soname" libi2psock.so.0
}

# ---- building ----

cflags=(-Iinclude) shared=("-L$out/run/lib" -li2psock)
static=("$out/run/static/libi2psock.a" -lpthread -ldl -lm -lrt -lutil -lgcc_s -lc)

# config WHAT: of the library where it was built.
config() {
    PKG_CONFIG_PATH=target/pkgconfig "${PKG_CONFIG:-pkg-config}" "$1" i2psock
}

use_pkg_config() {
    local text libs
    if text=$(config --cflags) && libs=$(config --libs); then
        read -r -a cflags <<<"$text"
        # Our copy first.
        read -r -a shared <<<"-Wl,-rpath,$out/run/lib $libs"
        good "pkg-config: $text $libs"
        if text=$(config --variable=static_libs) && [ -n "$text" ]; then
            read -r -a static <<<"${text//$release/$out/run/static}"
        fi
    else
        bad "pkg-config does not find i2psock in target/pkgconfig"
    fi
}

# at_once COMMAND...: for each of the lines of the input in place of {}.
at_once() {
    xargs -P "$jobs" -I{} "$@"
}

# compile COMPILER FOLDER NAME...
compile() {
    printf '%s\n' harness "${@:3}" | at_once "$1" -std=c99 "${warnings[@]}" "${cflags[@]}" -c 'tests/c/{}.c' -o "$2/{}.o"
}

# link_with COMPILER OBJECTS FOLDER LIBRARIES... : the programs that the input names.
link_with() {
    at_once "$1" "$2/{}.o" "$2/harness.o" -o "$3/{}" "${@:4}"
}

# programs WAY: those that run in this way. Over all of them each way has its turn, and nulls, which has every function, is for
# all.
programs() {
    local i
    for ((i = 0; i < ${#all[@]}; i++)); do
        if [ "${all[i]}" = nulls ] || [ "${ways[i % ${#ways[@]}]}" = "$1" ]; then
            printf '%s\n' "${names[@]}" | grep -x "${all[i]}"
        fi
    done
}

# All names but unload, which is linked with nothing.
linked() {
    printf '%s\n' "${names[@]}" | grep -v -x unload
}

build_shared() {
    local list
    mapfile -t list < <(linked)
    compile "$cc" "$out/run/shared" "${list[@]}" && linked | link_with "$cc" "$out/run/shared" "$out/run/shared" "${shared[@]}"
}

build_static() {
    programs static | link_with "$cc" "$out/run/shared" "$out/run/static" "${static[@]}" || return 1
    [ ! -f "$out/run/static/nulls" ] || ! ldd "$out/run/static/nulls" | grep libi2psock
}

build_clang() {
    local list
    mapfile -t list < <(linked)
    compile clang "$out/run/clang" "${list[@]}" && programs clang | link_with clang "$out/run/clang" "$out/run/clang" "${shared[@]}"
}

build_cxx() {
    { echo harness; linked; } | at_once "$cxx" -x c++ "${warnings[@]}" "${cflags[@]}" -fsyntax-only 'tests/c/{}.c'
}

build_unload() {
    "$cc" -std=c99 "${warnings[@]}" "${cflags[@]}" tests/c/unload.c -o "$out/run/shared/unload" -ldl
}

# ---- running ----

# job LABEL COMMAND...: one line of the list. (Nothing in there has a space in it but what separates words.)
job() {
    echo "$*" >>"$jobs_list"
}

run_jobs() {
    export out
    # The tests have time limits of their own; this one is for what nobody thought of.
    # shellcheck disable=SC2016
    xargs -P "$jobs" -L 1 bash -c 'label=$1 start=$SECONDS log=$out/run/log/$1
        shift
        timeout -k 5 1500 "$@" >"$log" 2>&1
        status=$?
        [ $status = 0 ] || grep -q "^FAILED" "$log" || echo "FAILED the program (exit $status)" >>"$log"
        echo "-- $label: $(grep -c "^ok" "$log") ok, $(grep -c "^FAILED" "$log") failed, $((SECONDS - start)) s"' _ <"$jobs_list" 9>&-
}

# Counts what a program has said.
count_job() {
    local label=$1 log=$out/run/log/$1 name
    # What valgrind has seen in a process whose exit status nobody asks for.
    if grep -qE '^==[0-9]+== (Invalid|Conditional|Use of|Syscall param|Mismatched|Source and dest|Argument)' "$log" && ! grep -q '^FAILED' "$log"; then
        echo 'FAILED valgrind found errors' >>"$log"
    fi
    # A program that says nothing has not run.
    grep -qE '^(ok|FAILED)' "$log" || echo 'FAILED it said nothing' >>"$log"
    good_ones "$(grep -c '^ok' "$log")"
    while IFS= read -r name; do
        bad "$label: ${name#FAILED }"
    done < <(grep '^FAILED' "$log")
    while IFS= read -r name; do
        skip "$label: ${name#SKIP: }"
    done < <(grep '^SKIP' "$log")
    ! grep -q '^FAILED' "$log" || grep -v '^ok' "$log" | head -n 80 | sed 's/^/    /'
}

if has "${PKG_CONFIG:-pkg-config}" && [ -d target/pkgconfig ]; then use_pkg_config; fi
shared+=("-Wl,-rpath,$out/run/lib" -lpthread)
symbols
ways=(shared static)
if has clang; then ways+=(clang); else skip "clang is not installed"; fi
if [ "${#names[@]}" = 1 ] && [ "${names[0]}" = unload ]; then
    ways=()
else
    check "C99 with $cc, shared library" build_shared
    check "C99 with $cc, static library" build_static
    if has clang; then check "C99 with clang" build_clang; fi
    if has "$cxx"; then check "C++ with $cxx" build_cxx; else skip "$cxx is not installed"; fi
fi

if [ -n "$valgrind" ] && ! has valgrind; then
    skip "valgrind is not installed"
    valgrind=
fi
jobs_list=$out/run/jobs
: >"$jobs_list"
for name in "${all[@]}"; do
    for way in ${ways[@]+"${ways[@]}"}; do
        ! programs "$way" | grep -q -x "$name" || job "$way-$name" "$out/run/$way/$name"
    done
    [ -z "$valgrind" ] || ! linked | grep -q -x "$name" ||
        job "valgrind-$name" env I2PSOCK_TEST_SLOWNESS=3 valgrind -q --vgdb=no --fair-sched=try --error-exitcode=99 \
            --leak-check=full --errors-for-leak-kinds=definite --show-leak-kinds=definite "$out/run/shared/$name"
done
if printf '%s\n' "${names[@]}" | grep -q -x unload; then
    check "unload.c" build_unload && job shared-unload "$out/run/shared/unload"
fi
run_jobs
while read -r label _; do
    count_job "$label"
done <"$jobs_list"
finish

#!/usr/bin/env bash
# The library from C++, Go, Ruby and Zig: the programs of examples-*, and those of README.md, with the library as it is
# installed, over the loopback bridge. `make check-ffi` runs it; it needs what `make all bridge` makes.
set -u

# shellcheck source=../steps.sh
. "$(dirname "$0")/../steps.sh"

stage=$folder/stage
make=${MAKE_COMMAND:-make}
pkg_config=${PKG_CONFIG:-pkg-config}
header=$stage/usr/include/i2psock.h

# pkg-config as for a system that is being built below $stage, for whoever calls it; and the library from there.
unset PKG_CONFIG_PATH
export PKG_CONFIG_LIBDIR=$stage/usr/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$stage PKG_CONFIG=$pkg_config
export PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
export LD_LIBRARY_PATH=$stage/usr/lib
# What the compilers keep goes where `make clean` finds it, and they fetch nothing.
export GOCACHE=$root/target/go-cache GOFLAGS=-mod=mod GOPROXY=off GOTOOLCHAIN=local
# Go's cache does not see that a header or the answer of pkg-config has changed, but it sees this.
export CGO_CFLAGS="-O2 -g -DSTAGE=$stage"
export ZIG_GLOBAL_CACHE_DIR=$root/target/zig-cache ZIG_LOCAL_CACHE_DIR=$root/target/zig-cache

installs() {
    "$make" -C "$root" --no-print-directory install DESTDIR="$stage" PREFIX=/usr
}

# ---- what every program has to do ----

# The programs all print the same, and all have the same address, since they use the same keys.
wanted() {
    echo 'failure: NETWORK, KEY_NOT_FOUND, ...'
    echo "address: $(cat "$folder/address")"
    echo 'stream: 1048576 bytes, SHA-256 f651b6c1915093a1cebe37f7754634af2a5bf50ffbfde45c3bc76f290e032b50'
    echo 'datagram: ping'
    echo 'datagram: pong'
}

echoes() {
    local said status=0
    said=$(timeout -k 10 240 "$@" "$folder/keys" "$sam_a" "$udp_a" 2>&1) || status=$?
    [ -f "$folder/address" ] || sed -n 's/^# //p' "$folder/keys/echo.sum" >"$folder/address"
    [ "$status" = 0 ] && diff <(wanted) <(sed 's/^\(failure: NETWORK, KEY_NOT_FOUND, \)..*/\1.../' <<<"$said") && return
    echo "status $status:"
    echo "$said"
    return 1
}

# Where nobody listens: a word and status 1, neither a crash nor silence.
says_why() {
    local said status=0
    said=$(timeout -k 10 60 "$@" 2>&1) || status=$?
    [ "$status" = 1 ] && grep -q 'Connection refused' <<<"$said" && return
    echo "status $status: $said"
    return 1
}

first_program() {
    local said
    said=$(I2P_SAM_ADDRESS=$sam_a timeout -k 10 60 "$@" 2>&1) || { echo "$said"; return 1; }
    [[ $said =~ ^[a-z2-7]{52}\.b32\.i2p$ ]] || { echo "$said"; return 1; }
    I2P_SAM_ADDRESS=$nobody says_why "$@"
}

# The program of README.md in the language that fences call $1.
extract() {
    awk -v fence="\`\`\`$1" '$0 == fence { inside = 1; blocks++; next } /^```$/ { inside = 0 } inside
        END { exit blocks != 1 }' "$root/README.md" >"$folder/readme.$2" && [ -s "$folder/readme.$2" ]
}

# example LANGUAGE COMMAND...: what the command that runs an example has to do.
example() {
    local language=$1
    shift
    check "$language: the example" echoes "$@" || return 1
    check "$language: again, with the same address" echoes "$@"
    check "$language: the example without a bridge" says_why "$@" "$folder/keys" "$nobody" "$nobody"
}

# All numeric constants of the header: NAME VALUE.
constants() {
    sed -n -e 's/^#define \(I2PSOCK_[A-Z0-9_]*\) (\{0,1\}\(-\{0,1\}[0-9][0-9]*\))\{0,1\}$/\1 \2/p' \
        -e 's/^ *\(I2PSOCK_[A-Z0-9_]*\) = \([0-9]*\),$/\1 \2/p' "$header"
}

same_constants() {
    local said
    said=$(timeout 60 "$@" 2>&1) || { echo "$said"; return 1; }
    [ "$(constants | wc -l)" -gt 50 ] && diff <(constants) <(echo "$said")
}

# ---- C++ ----

cxx() {
    local out=$1 source=$2
    shift 2
    # shellcheck disable=SC2046
    timeout 300 "$compiler" -O1 -g -Wall -Wextra -Wpedantic -Werror "$@" -o "$folder/$out" "$source" \
        $("$pkg_config" --cflags --libs i2psock)
}

sanitizes() {
    echo 'int main() { return 0; }' | "$compiler" -x c++ "${sanitizer[@]}" -o "$folder/sane" - && "${tame[@]}" "$folder/sane"
}

check_cxx() {
    local compiler sanitizer tame
    for compiler in g++ clang++; do
        # Older sanitizers now and then find their own place taken, where the kernel is free to put things anywhere.
        tame=(env)
        ! setarch -R true 2>/dev/null || tame=(setarch -R)
        sanitizer=("-fsanitize=address,undefined" -fno-sanitize-recover=all)
        if ! has "$compiler"; then
            skip "$compiler is not installed"
            continue
        fi
        if ! sanitizes >/dev/null 2>&1; then
            # Leaks are looked for by ptrace, which is not allowed everywhere. (valgrind looks for the library's.)
            tame+=(env ASAN_OPTIONS=detect_leaks=0)
        fi
        if ! sanitizes >/dev/null 2>&1; then
            skip "$compiler has no AddressSanitizer; the example is built without"
            sanitizer=()
        fi
        check "C++: $compiler builds the example" cxx echo "$root/examples-cpp/echo.cpp" -std=c++17 "${sanitizer[@]}" &&
            example "C++, $compiler" "${tame[@]}" "$folder/echo"
        check "C++: $compiler builds the program of README.md" cxx readme "$folder/readme.cpp" -std=c++11 &&
            check "C++, $compiler: the program of README.md" first_program "$folder/readme"
    done
}

# ---- Go ----

go_formatted() {
    [ -z "$(gofmt -l "$folder/readme.go" "$root/examples-go" "$root/tests/ffi" | tee /dev/stderr)" ]
}

go_vet() {
    timeout 600 go vet "$1"
}

go_build() {
    timeout 900 go build -race -o "$folder/$1" "$2"
}

# Every constant and every function of the header, as Go sees them.
go_header() {
    {
        printf 'package main\n\n// #cgo pkg-config: i2psock\n// #include <i2psock.h>\nimport "C"\n'
        printf 'import (\n"fmt"\n"unsafe"\n)\n\nvar functions = []unsafe.Pointer{\n'
        sed 's/.*/C.&,/' "$root/tests/symbols.txt"
        printf '}\n\nfunc main() {\n'
        constants | sed 's/^\([^ ]*\) .*/fmt.Println("\1", C.\1)/'
        printf '_ = functions\n}\n'
    } >"$folder/header.go"
    timeout 600 go build -o "$folder/header-go" "$folder/header.go" && same_constants "$folder/header-go"
}

check_go() {
    if ! has go; then
        skip "Go is not installed"
        return
    fi
    check "Go: gofmt" go_formatted
    check "Go: go vet, example" go_vet "$root/examples-go/echo.go"
    check "Go: go vet, goroutines" go_vet "$root/tests/ffi/goroutines.go"
    check "Go: the whole header" go_header
    check "Go: go build -race, example" go_build echo "$root/examples-go/echo.go" && example Go "$folder/echo"
    check "Go: go build -race, program of README.md" go_build readme "$folder/readme.go" &&
        check "Go: the program of README.md" first_program "$folder/readme"
    check "Go: go build -race, goroutines" go_build goroutines "$root/tests/ffi/goroutines.go" &&
        check "Go: idle streams hold no threads, and 1000 goroutines get what is theirs" \
            timeout -k 10 900 "$folder/goroutines" "$folder/keys" "$sam_a"
}

# ---- Ruby ----

check_ruby() {
    if ! has ruby; then
        skip "Ruby is not installed"
        return
    fi
    example Ruby ruby -w "$root/examples-ruby/echo.rb"
    check "Ruby: the program of README.md" first_program ruby -w "$folder/readme.rb"
}

# ---- Zig ----

# The one .ci/run has put there, or one of the machine.
find_zig() {
    zig=("$root/target/ziglang/ziglang/zig")
    [ ! -x "${zig[0]}" ] || return 0
    zig=(zig)
    ! has zig || return 0
    zig=(python3 -m ziglang)
    "${zig[@]}" version >/dev/null 2>&1
}

zig_build() {
    # shellcheck disable=SC2046
    timeout 900 "${zig[@]}" build-exe "$2" -lc $("$pkg_config" --cflags --libs i2psock) "-femit-bin=$folder/$1"
}

zig_formatted() {
    "${zig[@]}" fmt --check "$folder/readme.zig" "$root/examples-zig"
}

zig_header() {
    {
        printf 'const std = @import("std");\nconst c = @cImport(@cInclude("i2psock.h"));\n\npub fn main() void {\n'
        sed 's/.*/    _ = \&c.&;/' "$root/tests/symbols.txt"
        constants | sed 's/^\([^ ]*\) .*/    std.debug.print("\1 {d}\\n", .{c.\1});/'
        printf '}\n'
    } >"$folder/header.zig"
    zig_build header-zig "$folder/header.zig" && same_constants "$folder/header-zig"
}

check_zig() {
    local zig
    if ! find_zig; then
        skip "Zig is not installed (pip install ziglang)"
        return
    fi
    case $("${zig[@]}" version) in
    0.13.* | 0.14.* | 0.15.*) ;;
    *)
        skip "Zig $("${zig[@]}" version) is not one the programs are written for (0.13 to 0.15)"
        return
        ;;
    esac
    check "Zig: zig fmt" zig_formatted
    check "Zig: the whole header" zig_header
    check "Zig: building the example" zig_build echo "$root/examples-zig/echo.zig" && example Zig "$folder/echo"
    check "Zig: building the program of README.md" zig_build readme "$folder/readme.zig" &&
        check "Zig: the program of README.md" first_program "$folder/readme"
}

if ! has "$pkg_config"; then
    skip "pkg-config is not installed"
    finish
fi
# A thousand streams at once have two ends each, here and in the bridge, which may also take its time to join them.
ulimit -n "$(ulimit -H -n)"
BRIDGE_OPTIONS='--park 600000'
# Nobody listens there.
nobody=127.0.0.1:1

check "make install" installs || finish
for language in cpp:cpp go:go ruby:rb zig:zig; do
    check "README.md has a program in ${language%:*}" extract "${language%:*}" "${language#*:}"
done
if mkdir "$folder/router" && router_start bridge "$folder/router"; then
    check_cxx
    check_go
    check_ruby
    check_zig
else
    bad "the bridge"
fi
finish

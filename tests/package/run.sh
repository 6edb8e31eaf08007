#!/usr/bin/env bash
# Installs the library into folders of its own, uses it from there as a stranger would, and removes it again.
# `make check-package` runs it; it needs what `make examples bridge` makes.
set -u

# shellcheck source=../steps.sh
. "$(dirname "$0")/../steps.sh"

stage=$folder/stage
prefix=$folder/prefix
cc=${CC:-cc}
cxx=${CXX:-c++}
make=${MAKE_COMMAND:-make}
pkg_config=${PKG_CONFIG:-pkg-config}
warnings=(-Wall -Wextra -Wpedantic -Werror)
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)
soname=libi2psock.so.0

run_make() {
    "$make" -C "$root" --no-print-directory "$@"
}

same() {
    [ "$1" = "$2" ] || { printf 'is:      %s\nwants:   %s\n' "$1" "$2"; return 1; }
}

# ---- programs ----

# The first C program of README.md, and that of the header.
readme_program() {
    # shellcheck disable=SC2016
    sed -n '/^```c$/,/^```$/p' "$root/README.md" | sed -n '2,/^```$/p' | sed '$d'
}

header_program() {
    sed -n '/^ \* example-begin$/,/^ \* example-end$/p' "$root/include/i2psock.h" | sed -e '1d' -e '$d' -e 's/^ \* \{0,1\}//' -e 's/^    //'
}

extract() {
    readme_program >"$folder/readme.c" && header_program >"$folder/header.c" &&
        grep -q '^int main' "$folder/readme.c" && grep -q '^int main' "$folder/header.c"
}

# ---- the staged installation ----

installed_files() {
    (cd "$1" && find . ! -type d | LC_ALL=C sort)
}

stage_files() {
    same "$(installed_files "$stage")" "./usr/include/i2psock.h
./usr/lib/somewhere/libi2psock.a
./usr/lib/somewhere/libi2psock.so
./usr/lib/somewhere/$soname
./usr/lib/somewhere/$soname.${version#0.}
./usr/lib/somewhere/pkgconfig/i2psock.pc
./usr/share/man/man3/i2psock.3"
}

stage_links() {
    local lib=$stage/usr/lib/somewhere
    same "$(readlink "$lib/libi2psock.so")" "$soname" && same "$(readlink "$lib/$soname")" "$soname.${version#0.}" &&
        cmp "$lib/libi2psock.so" "$root/target/release/libi2psock.so"
}

# pkg-config as for a system that is being built below $stage.
stage_config() {
    env -u PKG_CONFIG_PATH PKG_CONFIG_LIBDIR="$stage/usr/lib/somewhere/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$stage" \
        PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1 "$pkg_config" "$@" i2psock
}

stage_pkg_config() {
    same "$(stage_config --modversion)" "$version" &&
        same "$(stage_config --cflags | sed 's/ *$//')" "-I$stage/usr/include" &&
        same "$(stage_config --libs | sed 's/ *$//')" "-L$stage/usr/lib/somewhere -li2psock" || return 1
    # Nothing of the folders it was made in.
    ! grep -e "$root" -e "$stage" "$stage/usr/lib/somewhere/pkgconfig/i2psock.pc"
}

stage_program() {
    # shellcheck disable=SC2046
    "$cc" -std=c99 "${warnings[@]}" -o "$folder/staged" "$root/tests/package/version.c" $(stage_config --cflags --libs) &&
        same "$(LD_LIBRARY_PATH=$stage/usr/lib/somewhere "$folder/staged")" "header $version, library $version"
}

stage_soname() {
    same "$(readelf -d "$stage/usr/lib/somewhere/libi2psock.so" | sed -n 's/.*soname: \[\(.*\)\].*/\1/p')" "$soname"
}

# ---- the plain installation ----

config() {
    env -u PKG_CONFIG_LIBDIR -u PKG_CONFIG_SYSROOT_DIR PKG_CONFIG_PATH="$prefix/lib/pkgconfig" "$pkg_config" "$@" i2psock
}

# Global symbols a library defines. Not with nm: where it has a plugin for LLVM, that stumbles over the bitcode in Rust's
# objects.
exported() {
    readelf -W "$1" "$2" 2>/dev/null | awk '$5 == "GLOBAL" && $6 == "DEFAULT" && $7 != "UND" { print $8 }' | LC_ALL=C sort -u
}

symbols_shared() {
    diff <(exported --dyn-syms "$prefix/lib/libi2psock.so") "$root/tests/symbols.txt"
}

symbols_static() {
    diff <(exported --syms "$prefix/lib/libi2psock.a" | grep '^i2psock_') "$root/tests/symbols.txt"
}

header_compiles() {
    local standard
    printf '#include <i2psock.h>\n#include <i2psock.h>\nint main(void) { return I2PSOCK_OK; }\n' >"$folder/include.c"
    for standard in c99 c11 c17; do
        # shellcheck disable=SC2046
        "$cc" "-std=$standard" "${warnings[@]}" -fsyntax-only $(config --cflags) "$folder/include.c" || return 1
    done
}

header_compiles_as_cxx() {
    local standard
    for standard in c++11 c++17 c++20; do
        # shellcheck disable=SC2046
        "$cxx" -x c++ "-std=$standard" "${warnings[@]}" -fsyntax-only $(config --cflags) "$folder/include.c" || return 1
    done
}

# Compiles a program of the documentation. Those talk to the bridge at its usual port; except with `plain`, test_options()
# makes them use I2P_SAM_ADDRESS.
build() {
    local how=$1 source=$2
    local compiled=("${warnings[@]}" -include "$root/tests/package/options.h" -o "$folder/program" "$folder/program.c")
    sed 's/i2psock_controller_open(NULL, /i2psock_controller_open(test_options(), /' "$source" >"$folder/program.c"
    # shellcheck disable=SC2046
    case $how in
    plain) "$cc" -std=c99 "${warnings[@]}" -o "$folder/program" "$source" $(config --cflags --libs) ;;
    shared) "$cc" -std=c99 "${compiled[@]}" $(config --cflags --libs) ;;
    mixed) "$cc" -std=c99 "${compiled[@]}" $(config --cflags) $(config --variable=static_libs) ;;
    static) "$cc" -static -std=c99 "${compiled[@]}" $(config --static --cflags --libs) ;;
    c++) "$cxx" -std=c++11 -x c++ "${compiled[@]}" -x none $(config --cflags --libs) ;;
    esac
}

linked_shared() {
    ldd "$folder/program" 2>&1 | grep -q "$soname"
}

runs() {
    local said
    said=$(I2P_SAM_ADDRESS=$sam_a LD_LIBRARY_PATH=$prefix/lib timeout 60 "$folder/program" "$address") || { echo "$said"; return 1; }
    same "$said" 'Hello, how are you?'
}

shared_program() {
    build plain "$1" && build shared "$1" && LD_LIBRARY_PATH=$prefix/lib linked_shared && runs
}

static_program() {
    build "$1" "$2" && ! linked_shared && runs
}

cxx_program() {
    build c++ "$1" && runs
}

# An example program, as another project would build it: with nothing but pkg-config.
example() {
    # shellcheck disable=SC2046
    "$cc" -std=c99 "${warnings[@]}" -o "$folder/client" "$root/examples-c/client.c" "$root/examples-c/common.c" \
        $(config --cflags) $(if [ "$1" = shared ]; then config --libs; else config --variable=static_libs; fi) &&
        LD_LIBRARY_PATH=$prefix/lib timeout 60 "$folder/client" --sam "$sam_a" "$address" |
        grep -x 'Answer: Hello, how are you?'
}

nothing_left() {
    same "$(installed_files "$1")" ''
}

start_server() {
    mkdir "$folder/router" && router_start bridge "$folder/router" || return 1
    timeout 900 "$root/target/examples-c/server" --sam "$sam_a" >"$folder/server.out" 2>"$folder/server.err" &
    at_end end_process $!
    wait_until 120 grep -s -q '^Server address: ' "$folder/server.out" || { cat "$folder/server.err"; return 1; }
    address=$(sed -n 's/^Server address: //p' "$folder/server.out")
}

versions_agree() {
    local header
    header=$(sed -n 's/^#define I2PSOCK_VERSION_[A-Z]* \([0-9]*\)$/\1/p' "$prefix/include/i2psock.h" | paste -s -d .)
    same "$header" "$version" && same "$(sed -n 's/^#define I2PSOCK_VERSION "\(.*\)"$/\1/p' "$prefix/include/i2psock.h")" "$version" &&
        same "$(config --modversion)" "$version"
}

if ! has "$pkg_config"; then
    skip "pkg-config is not installed"
    finish
fi

check "make install with DESTDIR and LIBDIR" run_make install DESTDIR="$stage" PREFIX=/usr LIBDIR=/usr/lib/somewhere
check "every file is in its place, and no other" stage_files
check "the links lead to the library" stage_links
check "soname" stage_soname
check "pkg-config finds it there" stage_pkg_config
check "a program runs with it; header and library have the same version" stage_program
check "make uninstall" run_make uninstall DESTDIR="$stage" PREFIX=/usr LIBDIR=/usr/lib/somewhere
check "nothing is left" nothing_left "$stage"

check "make install with PREFIX" run_make install PREFIX="$prefix"
check "versions of Cargo.toml, header and pkg-config agree" versions_agree
check "the shared library exports what tests/symbols.txt lists, and nothing else" symbols_shared
check "the static library has the same functions" symbols_static
check "the header compiles by itself" header_compiles
check "README.md and the header have a program" extract
if start_server; then
    check "the program of README.md, shared" shared_program "$folder/readme.c"
    check "the program of README.md, static" static_program mixed "$folder/readme.c"
    check "the program of the header, shared" shared_program "$folder/header.c"
    check "the program of the header, static" static_program mixed "$folder/header.c"
    if echo 'int main(void) { return 0; }' | "$cc" -static -x c -o "$folder/static" - 2>/dev/null; then
        check "the program of the header, static with everything" static_program static "$folder/header.c"
    else
        skip "there is no static C library"
    fi
    check "examples-c/client, shared" example shared
    check "examples-c/client, static" example static
    if has "$cxx"; then
        check "the header compiles by itself as C++" header_compiles_as_cxx
        check "the program of the header as C++" cxx_program "$folder/header.c"
    else
        skip "there is no C++ compiler"
    fi
else
    bad "server over the bridge"
fi
check "make uninstall with PREFIX" run_make uninstall PREFIX="$prefix"
check "nothing is left of it" nothing_left "$prefix"
finish

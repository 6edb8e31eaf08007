#!/usr/bin/env bash
# Another i2pd than this machine's, from another release of Debian, in a folder where it disturbs nothing and needs no root.
set -u

usage() {
    cat <<'END'
Usage: fetch.sh SUITE FOLDER

Gets i2pd and its libraries as Debian's SUITE (trixie, sid) has them, from the
mirror of this machine, and makes FOLDER: FOLDER/i2pd runs that i2pd with
these libraries. Nothing is installed. If FOLDER is there already nothing is
done.

Prints the version. Exits with 77 if it cannot be had, or does not run here.
END
}

if [[ ${1-} == --help || ${1-} == -h ]]; then
    usage
    exit 0
elif (($# != 2)) || [[ ! $1 =~ ^[a-z]+$ ]]; then
    usage >&2
    exit 2
fi
suite=$1
target=$2
# apt's time limits are for one transfer.
limit=400

# Says why there is none. What the tools said comes first.
give_up() {
    [[ ! -s $folder/log ]] || tail -n 20 "$folder/log" >&2
    printf 'fetch.sh: no i2pd of Debian %s: %s\n' "$suite" "$*" >&2
    exit 77
}

version_in() {
    timeout 20 "$1/i2pd" --version 2>/dev/null | sed -n 's/^i2pd version \([^ ]*\).*/\1/p'
}

tell_version() {
    local version
    version=$(version_in "$1") && [[ -n $version ]] || return 1
    printf 'i2pd %s\n' "$version"
}

if [[ -e $target ]]; then
    tell_version "$target" && exit 0
    printf 'fetch.sh: %s is there, but has no i2pd that runs\n' "$target" >&2
    exit 77
fi

# Beside the folder it becomes, in one step and only when it is whole.
mkdir -p -- "$(dirname -- "$target")" && target=$(cd -- "$(dirname -- "$target")" && pwd)/$(basename -- "$target") &&
    folder=$(mktemp -d -- "$target.XXXXXXXX") || exit 1
trap 'rm -rf -- "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for tool in apt-get apt-cache dpkg-deb; do
    command -v "$tool" >/dev/null || give_up "$tool is missing"
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[[ -f $keyring ]] || give_up "$keyring is missing"
# shellcheck disable=SC2016
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m 1 '/debian/$')

mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/debs" "$folder/tree" || exit 1
echo "deb [signed-by=$keyring target=Packages] ${mirror:-http://deb.debian.org/debian/} $suite main" >"$folder/sources.list"
# Nothing of the system's but its proxies and time limits.
options=(-o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferences=/dev/null
    -o Dir::Etc::preferencesparts=/dev/null -o "Dir::State::Lists=$folder/lists" -o "Dir::Cache=$folder/cache"
    -o Dir::State::status=/dev/null -o APT::Default-Release= -o Acquire::Languages=none -o Acquire::Retries=2
    -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30)
if [[ $(id -u) == 0 ]]; then
    # The user it would become cannot write here.
    options+=(-o APT::Sandbox::User=root)
fi

# within COMMAND...: in what is left of the time; what it says goes to the log.
within() {
    ((SECONDS < limit)) && timeout --foreground -k 5 $((limit - SECONDS)) "$@" >>"$folder/log" 2>&1
}

within apt-get "${options[@]}" -o APT::Update::Error-Mode=any update || give_up "the mirror ${mirror-} does not have that release"
mapfile -t packages < <(apt-cache "${options[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances i2pd 2>>"$folder/log" | grep -E '^(lib[^ :]*|zlib1g)$' | sort -u)
[[ ${#packages[@]} -gt 0 ]] || give_up "it has no such package"
cd "$folder/debs" || exit 1
within apt-get "${options[@]}" download i2pd "${packages[@]}" || give_up "it cannot be downloaded"
for deb in *.deb; do
    within dpkg-deb --extract "$deb" "$folder/tree" || give_up "$deb cannot be unpacked"
done
cd / || exit 1

# Started by the loader of these libraries, for this machine's may be too old for them.
loader=
for file in "$folder"/tree/usr/lib/*-linux-gnu*/ld-linux*.so.* "$folder"/tree/lib/*-linux-gnu*/ld-linux*.so.*; do
    [[ -z $loader && -e $file ]] && loader=${file#"$folder/tree/"}
done
[[ -n $loader && -x $folder/tree/usr/bin/i2pd || -x $folder/tree/usr/sbin/i2pd ]] || give_up "its package is laid out differently"
program=usr/bin/i2pd
[[ -x $folder/tree/$program ]] || program=usr/sbin/i2pd
cat >"$folder/i2pd" <<END
#!/bin/sh
# Made by fetch.sh: the i2pd of Debian $suite, with its own libraries.
tree=\$(dirname "\$0")/tree
exec "\$tree/$loader" --library-path "\$tree/${loader%/*}" "\$tree/$program" "\$@"
END
chmod 755 "$folder/i2pd" && rm -rf "$folder/lists" "$folder/cache" "$folder/debs" "$folder/sources.list"
tell_version "$folder" || { "$folder/i2pd" --version >>"$folder/log" 2>&1; give_up "it does not run on this machine"; }
rm -f "$folder/log"
chmod 755 "$folder"
# Another one of these may have been quicker.
mv -T -- "$folder" "$target" 2>/dev/null || [[ -x $target/i2pd ]]

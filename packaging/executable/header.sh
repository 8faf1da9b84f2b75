#!/bin/sh
# k1s, one executable: this script, then a tar.gz. The first run unpacks it below the data directory, later ones only start it.
# Needs sh, tail, tar, gzip and glibc @GLIBC@ or newer. Written by packaging/build.sh; the sources hold the licence of each part.
set -eu
hash=@HASH@
data=
case ${1:-} in
server | agent | stop | uninstall | check-config)
    last=
    for word; do
        case $last in --data-dir | -d) data=$word ;; esac
        case $word in --data-dir=*) data=${word#*=} ;; esac
        last=$word
    done
    ;;
esac
shared=${data:-${K1S_DATA_DIR:-/var/lib/k1s}}/data
dir=$shared/$hash
if [ ! -x "$dir/k1s" ]; then
    # Without the right to write there: what root has unpacked is not ours to use, so one of our own.
    if ! mkdir -p "$shared" 2>/dev/null || [ ! -w "$shared" ]; then
        shared=${HOME:?k1s: no place to unpack to, set K1S_DATA_DIR}/.k1s/data
        dir=$shared/$hash
        mkdir -p "$shared"
    fi
fi
if [ ! -x "$dir/k1s" ]; then
    umask 022
    fresh=$shared/.$hash.$$
    trap 'rm -rf "$fresh"' EXIT
    trap 'exit 130' INT TERM
    mkdir "$fresh"
    tail -n +@LINES@ "$0" | tar -xz -C "$fresh"
    [ -x "$fresh/k1s" ] || { echo "k1s: unpacking to $shared failed" >&2; exit 1; }
    # On disk before it gets its name: after a power cut it is there as a whole, or not at all.
    sync -f "$fresh" 2>/dev/null || sync
    # Another first run may have been faster; its result is as good.
    mv -T "$fresh" "$dir" 2>/dev/null || [ -x "$dir/k1s" ]
    ln -s "$hash" "$shared/.current.$$" && mv -T "$shared/.current.$$" "$shared/current"
    rm -rf "$fresh"
    trap - EXIT INT TERM
fi
export K1S_EXE="$0" K1S_BIN_DIR="$dir/bin" K1S_IMAGES_DIR="$dir/images" K1S_DEFINITIONS="$dir/definitions.json"
exec "$dir/k1s" "$@"

#!/bin/sh
# Installs what k1s needs to run from a clone: system packages, a virtual environment, kubectl and helm, images.
# Called by: make. Does only what is missing, so a second run takes no time. Needs root only where packages are missing.
#   prepare.sh run     what `make up` needs
#   prepare.sh check   what `make check` needs (no root, no containerd; the real clients)
#   prepare.sh test    both, and what the tests need
set -eu
cd "$(dirname "$0")/.."
goal=${1:-run}
say() { printf '%s\n' "$*"; }

missing=""
need() { # COMMAND-OR-FILE PACKAGE
    command -v "$1" >/dev/null 2>&1 || [ -e "$1" ] || missing="$missing $2"
}
need python3 python3
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
if [ "$goal" != check ]; then
    need containerd containerd
    need containerd-shim-runc-v2 containerd
    need runc runc
    need gcc gcc
    need /usr/include/stdio.h libc6-dev
    need /bin/busybox busybox-static
    need ip iproute2
    need mount mount
    ldconfig -p 2>/dev/null | grep -q 'libnftables\.so\.1' || missing="$missing libnftables1"
fi
if [ "$goal" = test ]; then
    need nft nftables
    need make make
    need git git
    need ethtool ethtool
    # Another CNI plugin, with --network-backend none.
    need /usr/lib/cni/bridge containernetworking-plugins
    # A host with a wrong clock, in tests/e2e/hosts.py.
    set -- /usr/lib/*/faketime/libfaketimeMT.so.1
    need "$1" libfaketime
fi
if [ -n "$missing" ]; then
    [ "$(id -u)" = 0 ] || { say "missing:$missing - run this as root, or: apt-get install$missing"; exit 1; }
    say "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # A packaged containerd must not start a service of its own beside ours.
    # shellcheck disable=SC2086
    RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { say "k1s needs Python 3.11 or newer"; exit 1; }

# stale TARGET SOURCE: dash's -nt is false where the target is missing.
stale() { [ ! -e "$1" ] || [ "$2" -nt "$1" ]; }
stamp() { cat "$@" | cksum | tr -d ' \t'; }

extras=""
[ "$goal" = run ] || extras="[dev]"
mark=".venv/.k1s-$goal-$(stamp pyproject.toml)"
if [ ! -e "$mark" ]; then
    say "creating the virtual environment"
    [ -x .venv/bin/python ] || python3 -m venv .venv
    .venv/bin/python -m pip install -q --disable-pip-version-check -e ".$extras"
    touch "$mark"
fi
tools=.tools
mkdir -p $tools/bin $tools/images
# The wire tests of `make check` use the real clients, older ones too.
wanted="kubectl helm"
older=""
[ "$goal" = run ] || { wanted="$wanted kubectl-1.30 kubectl-1.33"; older=--older; }
for program in $wanted; do
    if [ ! -x "$tools/bin/$program" ]; then
        say "fetching kubectl and helm"
        .venv/bin/python packaging/fetch_clients.py $tools/bin $older
        break
    fi
done
[ "$goal" != check ] || exit 0
# The ingress controller of the add-on "traefik"; 50 MB, so it lies beside the images that every node needs. k1s runs without it.
mark="$tools/addons/traefik-$(stamp packaging/fetch_traefik.py)"
if [ ! -e "$mark" ]; then
    say "fetching traefik"
    if .venv/bin/python packaging/fetch_traefik.py $tools/addons/traefik.tar; then
        rm -f $tools/addons/traefik-[0-9]*
        touch "$mark"
    else
        say "traefik cannot be had here; k1s will leave that add-on out"
    fi
fi
# Else the first start would compile, which takes 2 s; also where PYTHONDONTWRITEBYTECODE is set.
.venv/bin/python -m compileall -q k1s

if stale $tools/bin/k1s-cni packaging/cni/k1s-cni.c; then
    gcc -Os -static -s -o $tools/bin/k1s-cni packaging/cni/k1s-cni.c
fi
if stale $tools/images/pause.tar packaging/pause/pause.c; then
    gcc -Os -static -nostdlib -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables \
        -Wl,--build-id=none -s -o $tools/pause packaging/pause/pause.c
    .venv/bin/python packaging/images.py pause $tools/pause $tools/images/pause.tar
fi
if stale $tools/images/busybox.tar packaging/images.py; then
    .venv/bin/python packaging/images.py busybox /bin/busybox $tools/images/busybox.tar
fi

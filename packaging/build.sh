#!/bin/sh
# Builds dist/k1s: one file that runs on a host without Python. A shell header, then a tar.gz of a PyInstaller directory with
# the programs that k1s starts. Called by: make build. Needs the virtual environment and .tools (packaging/prepare.sh run).
#   PYTHON=...  another interpreter with k1s and its dependencies     K1S_TOOLS=...  another directory with bin/ and images/
#   HELM=yes    put helm in as well      TRAEFIK=yes    and the ingress controller's image (50 MB)
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
tools=${K1S_TOOLS:-.tools}
say() { printf '%s\n' "$*"; }

find_program() { # the path of a program, sbin directories included
    PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" command -v "$1" || { say "$1 is missing: run packaging/prepare.sh run" >&2; exit 1; }
}

if ! "$python" -c 'import PyInstaller' 2>/dev/null; then
    say "installing PyInstaller"
    "$python" -m pip install -q --disable-pip-version-check -e '.[build]'
fi
K1S_LIBNFTABLES=$(ldconfig -p | sed -n 's/.*libnftables\.so\.1 .*=> //p' | head -n 1)
[ -n "$K1S_LIBNFTABLES" ] || { say "libnftables.so.1 is missing: apt-get install libnftables1" >&2; exit 1; }
export K1S_LIBNFTABLES

say "freezing k1s"
rm -rf build/executable
mkdir -p build/executable dist
"$python" -m PyInstaller --log-level ERROR --noconfirm --distpath build/executable --workpath build/pyinstaller \
    packaging/executable/k1s.spec
tree=build/executable/k1s

say "adding programs, definitions, images"
mkdir -p $tree/bin $tree/images
programs="containerd containerd-shim-runc-v2 ctr runc"
for name in $programs; do install -m 755 "$(find_program "$name")" $tree/bin/; done
install -m 755 "$tools/bin/kubectl" "$tools/bin/k1s-cni" $tree/bin/
[ "${HELM:-no}" = no ] || install -m 755 "$tools/bin/helm" $tree/bin/
install -m 644 "$tools/images/pause.tar" $tree/images/
[ "${TRAEFIK:-no}" = no ] || install -m 644 "$tools/addons/traefik.tar" $tree/images/
# Found under its usual name; what it needs lies beside it (k1s.spec).
ln -s ../_internal/libnftables.so.1 $tree/bin/libnftables.so.1
install -m 644 "$("$python" -c 'from k1s.api import definitions; print(definitions.path())')" $tree/definitions.json
# PyInstaller strips what it finds; a libpython with debug sections may have come along under a second name.
find $tree -name '*.so*' -type f -exec strip --strip-unneeded {} + 2>/dev/null || true

say "packing"
# The same content gives the same archive, and so the same hash.
find $tree -exec touch -h -d @1577836800 {} +
tar --sort=name --owner=0 --group=0 --numeric-owner -C $tree -cf - . | gzip -9n > build/executable/k1s.tar.gz
hash=$(sha256sum build/executable/k1s.tar.gz | cut -c 1-16)
glibc=$(ldd --version | sed -n '1s/.* //p')
lines=$(($(wc -l < packaging/executable/header.sh) + 1))
sed -e "s/@HASH@/$hash/" -e "s/@LINES@/$lines/" -e "s/@GLIBC@/$glibc/" packaging/executable/header.sh > dist/k1s.partial
cat build/executable/k1s.tar.gz >> dist/k1s.partial
chmod 755 dist/k1s.partial
mv dist/k1s.partial dist/k1s
say "dist/k1s: $(du -m dist/k1s | cut -f 1) MB, unpacks to $(du -sm $tree | cut -f 1) MB"

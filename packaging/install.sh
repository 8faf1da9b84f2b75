#!/bin/sh
# Puts `k1s` into the PATH and the images beside its data, and starts nothing: what a host needs before `k1s server` or
# `k1s agent --join`. With systemd also the units k1s.service and k1s-agent.service. Called by: make install, up.sh.
set -eu
cd "$(dirname "$0")/.."
here=$(pwd)
[ "$(id -u)" = 0 ] || { echo "k1s needs root: sudo make ${1:-install}" >&2; exit 1; }
data=${K1S_DATA_DIR:-/var/lib/k1s}

# The images that a machine without a registry needs; the agent imports what it finds there.
mkdir -p "$data/agent/images" /run/k1s
for image in .tools/images/*.tar .tools/addons/*.tar; do
    [ -e "$image" ] || continue
    target="$data/agent/images/$(basename "$image")"
    cmp -s "$image" "$target" || { cp "$image" "$target.partial" && mv "$target.partial" "$target"; }
done

cat > .tools/k1s <<WRAPPER
#!/bin/sh
# Written by 'make up' in $here; removed by 'make down'.
K1S_BIN_DIR="$here/.tools/bin" exec "$here/.venv/bin/python" -m k1s.cli.main "\$@"
WRAPPER
chmod 755 .tools/k1s
if ! cmp -s .tools/k1s /usr/local/bin/k1s; then
    if [ -e /usr/local/bin/k1s ] && ! grep -q "Written by 'make up'" /usr/local/bin/k1s; then
        echo "/usr/local/bin/k1s is not ours; remove it first" >&2
        exit 1
    fi
    install -m 755 .tools/k1s /usr/local/bin/k1s
fi
if [ -d /run/systemd/system ]; then
    for unit in k1s.service k1s-agent.service; do
        cmp -s packaging/systemd/$unit /etc/systemd/system/$unit || install -m 644 packaging/systemd/$unit /etc/systemd/system/$unit
    done
    systemctl daemon-reload
fi
[ "${1:-install}" != install ] || cat <<DONE
k1s is installed. On the first host:   sudo k1s server            (or: sudo make up)
On every other host:                   sudo k1s agent --join https://SERVER:6443 --token TOKEN
DONE

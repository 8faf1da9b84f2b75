#!/bin/sh
# Stops k1s and removes everything it put on the host: processes, links, nftables tables, mounts, cgroups.
# The data directory stays, so that `make up` brings everything back; with --purge it goes too.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "k1s needs root: sudo make down" >&2; exit 1; }
run=/run/k1s
if [ -d /run/systemd/system ]; then
    for unit in k1s.service k1s-agent.service; do
        [ -e /etc/systemd/system/$unit ] || continue
        systemctl disable --now $unit
        rm -f /etc/systemd/system/$unit
    done
    systemctl daemon-reload
fi
if [ -s $run/supervise.pid ]; then
    pid=$(cat $run/supervise.pid)
    kill -TERM "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
fi
if [ -x .venv/bin/python ]; then
    verb=stop
    [ "${1:-}" != --purge ] || verb=uninstall
    K1S_BIN_DIR="$(pwd)/.tools/bin" .venv/bin/python -m k1s.cli.main $verb
fi
if [ -e /usr/local/bin/k1s ] && grep -q "Written by 'make up'" /usr/local/bin/k1s; then rm -f /usr/local/bin/k1s; fi

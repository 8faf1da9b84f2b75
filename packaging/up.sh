#!/bin/sh
# Starts `k1s server` in the background and returns when the node is Ready. A second run changes nothing.
# With systemd it becomes the unit k1s.service, otherwise packaging/supervise.sh restarts it when it dies.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "k1s needs root: sudo make up" >&2; exit 1; }
kubeconfig=${K1S_KUBECONFIG:-/etc/k1s/k1s.yaml}
run=/run/k1s
log=/var/log/k1s.log

sh packaging/install.sh up

running() { [ -s $run/supervise.pid ] && kill -0 "$(cat $run/supervise.pid)" 2>/dev/null; }
if [ -d /run/systemd/system ]; then
    systemctl start k1s.service
elif ! running; then
    # journald bounds the log where there is systemd; here each start does.
    if [ -f $log ] && [ "$(stat -c %s $log)" -gt 10485760 ]; then mv $log $log.1; fi
    setsid sh packaging/supervise.sh $run/supervise.pid /usr/local/bin/k1s server >>$log 2>&1 </dev/null &
fi

began=$(date +%s)
until k1s kubectl --kubeconfig "$kubeconfig" wait --for=condition=Ready node --all --timeout=10s >/dev/null 2>&1; do
    waited=$(($(date +%s) - began))
    if [ $waited -gt 240 ] || { [ ! -d /run/systemd/system ] && [ $waited -gt 3 ] && ! running; }; then
        echo "k1s did not become Ready; the end of its log ($log, or journalctl -u k1s):" >&2
        tail -n 15 $log >&2 || true
        exit 1
    fi
    sleep 0.2
done
k1s kubectl --kubeconfig "$kubeconfig" get nodes
cat <<DONE

k1s is running. Try next:
  export KUBECONFIG=$kubeconfig
  sudo k1s kubectl create deployment web --image=docker.io/library/busybox:1.36 --replicas=3 -- httpd -f -p 8080 -h /etc
  sudo k1s kubectl get pods -o wide --watch
DONE

#!/bin/sh
# Restarts a command when it dies: `supervise.sh PIDFILE COMMAND [ARG ...]`, for hosts without systemd.
# A TERM ends the command and then this. Exit code 1 of the command means that a restart cannot help.
pidfile=$1
shift
echo $$ > "$pidfile"
child=
trap 'trap "" TERM INT; [ -z "$child" ] || { kill -TERM "$child" 2>/dev/null; wait "$child"; }; rm -f "$pidfile"; exit 0' TERM INT
while :; do
    started=$(date +%s)
    "$@" &
    child=$!
    wait "$child"
    code=$?
    child=
    [ "$code" != 0 ] && [ "$code" != 1 ] || { rm -f "$pidfile"; exit "$code"; }
    # One that dies at once is not restarted in a tight loop.
    [ $(($(date +%s) - started)) -ge 10 ] || sleep 1
done

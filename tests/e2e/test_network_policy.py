"""NetworkPolicy on three hosts with real pods: the example of the README, and what only whole nodes can show.

The matrix of all policies, pods and ports is tests/node/test_net_policy.py.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import ROOT, eventually, run
from .hosts import Hosts

BUSYBOX = "docker.io/library/busybox:1.36"
NAMESPACE = "policy-demo"
EXAMPLE = ROOT / "examples" / "network-policy.yaml"
APPS = ("database", "shop", "visitor")


@pytest.fixture(scope="module")
def demo(hosts: Hosts) -> Iterator[Hosts]:
    hosts.kubectl("apply", "-f", str(EXAMPLE))
    for app in APPS:
        hosts.kubectl("-n", NAMESPACE, "rollout", "status", f"deploy/{app}", "--timeout=90s")
    yield hosts
    hosts.kubectl("delete", "-f", str(EXAMPLE), "--wait=false")


def pod_of(hosts: Hosts, app: str) -> dict[str, Any]:
    (found,) = hosts.get("pods", "-n", NAMESPACE, "-l", f"app={app}")["items"]
    return dict(found)


def ask(hosts: Hosts, source: str, target: str) -> str:
    """What `target` says, or nothing. The busybox of the tests has a broken `wget -T`; refusals come at once anyway."""
    command = ["timeout", "5", "wget", "-q", "-O", "-", f"http://{target}"]
    return hosts.kubectl("-n", NAMESPACE, "exec", f"deploy/{source}", "--", *command, check=False).stdout.strip()


def reached(hosts: Hosts) -> set[tuple[str, str]]:
    return {(a, b) for a in APPS for b in APPS if a != b and ask(hosts, a, b) == f"this is the {b}"}


EXPECTED = {("shop", "database"), ("visitor", "shop")}


def test_what_it_forbids_fails_and_what_it_allows_works(demo: Hosts) -> None:
    assert len({pod_of(demo, app)["spec"]["nodeName"] for app in APPS}) == 3
    assert reached(demo) == EXPECTED
    # By address the same; and nobody from outside the cluster but to the shop.
    for app in APPS:
        address = pod_of(demo, app)["status"]["podIP"]
        assert bool(ask(demo, "visitor", f"{address}:8080")) == (app in ("shop", "visitor"))


def test_no_table_rules_on_a_node_without_isolated_pods(demo: Hosts) -> None:
    """And one table per node is all there is: the nodes above have theirs."""
    for host in demo.hosts.values():
        rules = run(*host.inside("nft", "list", "table", "ip", "k1s-policy")).stdout
        assert "forward-ingress" in rules


def test_new_pods_are_let_in_at_their_first_try(demo: Hosts) -> None:
    """Peers of other nodes, which the database's node has not heard of when their first packet comes."""
    address = pod_of(demo, "database")["status"]["podIP"]
    pods = []
    for number in range(6):
        made = pod(f"first-{number}", NAMESPACE, f"exec wget -q -O - http://{address}:8080")
        made["metadata"]["labels"] = {"app": "shop", "try": "first"}
        made["spec"]["nodeName"] = "abc"[number % 3]
        pods.append(made)
    demo.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))

    def phases() -> set[str]:
        return {p["status"].get("phase") for p in demo.get("pods", "-n", NAMESPACE, "-l", "try=first")["items"]}

    eventually(lambda: phases() <= {"Succeeded", "Failed"}, 60, "all have tried")
    assert phases() == {"Succeeded"}
    demo.kubectl("-n", NAMESPACE, "delete", "pods", "-l", "try=first", "--wait=false")


def test_rules_hold_while_the_agent_is_away(demo: Hosts) -> None:
    node = pod_of(demo, "database")["spec"]["nodeName"]
    address = pod_of(demo, "database")["status"]["podIP"]
    host = demo[node]
    pid = host.pid_of("agent")
    os.kill(pid, signal.SIGKILL)
    client = demo.outside("wget", "-q", "-O", "-", "-T", "2", "-t", "1", f"http://{address}:8080", check=False)
    assert client.returncode != 0
    denied = run(*host.inside("nft", "list", "table", "ip", "k1s-policy")).stdout
    assert address in denied
    if node == demo.server.node:
        eventually(lambda: host.pid_of("agent") != pid, 20, "its supervisor starts the agent again")
    else:
        host.join(demo.url, demo.token)
    demo.wait_ready()
    eventually(lambda: reached(demo) == EXPECTED, 30, "the same after its return")


def test_a_foreign_flush_is_repaired(demo: Hosts) -> None:
    node = pod_of(demo, "database")["spec"]["nodeName"]
    run(*demo[node].inside("nft", "delete", "table", "ip", "k1s-policy"))
    eventually(lambda: reached(demo) == EXPECTED, 20, "the rules are back")


CHATTY = """
i=0
while [ $i -lt 20 ]; do
  timeout 1 wget -q -O /dev/null "http://$TARGET:8080/$(hostname)" && echo leaked
  i=$((i+1))
done
echo done
"""


def test_a_pod_whose_first_act_is_to_send(demo: Hosts) -> None:
    """Under default-deny egress not one connection gets out, from the very first instant on; under no policy all do."""
    demo.kubectl("create", "namespace", "policy-open")
    demo.kubectl("create", "namespace", "policy-shut")
    deny = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny", "namespace": "policy-shut"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
    }
    demo.kubectl("apply", "-f", "-", input=json.dumps(deny))
    listener = pod("listener", "policy-open", "mkdir /www; exec httpd -f -vv -p 8080 -h /www")
    demo.kubectl("apply", "-f", "-", input=json.dumps(listener))
    demo.kubectl("wait", "-n", "policy-open", "--for=condition=Ready", "pod/listener", "--timeout=60s")
    target = demo.get("pod", "listener", "-n", "policy-open")["status"]["podIP"]
    script = f"TARGET={target}\n{CHATTY}"
    pods = [pod(f"chatty-{number}", namespace, script) for namespace in ("policy-shut", "policy-open") for number in range(4)]
    demo.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))

    def ended() -> bool:
        phases = [p["status"]["phase"] for p in demo.get("pods", "-n", "policy-shut")["items"]]
        return phases == ["Succeeded"] * 4

    eventually(ended, 90, "all tries are made")
    log = (
        demo.kubectl("logs", "-n", "policy-open", "listener").stdout
        + demo.kubectl("logs", "-n", "policy-open", "listener").stderr
    )
    shut = {p["status"]["podIP"] for p in demo.get("pods", "-n", "policy-shut")["items"]}
    free = {p["status"]["podIP"] for p in demo.get("pods", "-n", "policy-open")["items"]} - {target}
    assert not [address for address in shut if address in log], log[-2000:]
    assert [address for address in free if address in log], "the listener notes who comes"
    for number in range(4):
        assert "leaked" not in demo.kubectl("logs", "-n", "policy-shut", f"chatty-{number}").stdout
    demo.kubectl("delete", "namespace", "policy-open", "policy-shut", "--wait=false")


def pod(name: str, namespace: str, script: str) -> dict[str, Any]:
    container = {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script]}
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def test_without_policies_everything_is_open_again(demo: Hosts) -> None:
    demo.kubectl("-n", NAMESPACE, "delete", "networkpolicy", "--all")
    everything = {(a, b) for a in APPS for b in APPS if a != b}
    eventually(lambda: reached(demo) == everything, 20, "no policy, no rule")
    for host in demo.hosts.values():
        eventually(
            lambda host=host: "chain" not in run(*host.inside("nft", "list", "table", "ip", "k1s-policy")).stdout,
            10,
            "an empty table",
        )
    begin = time.monotonic()
    demo.kubectl("apply", "-f", str(EXAMPLE))
    eventually(lambda: reached(demo) == EXPECTED, 20, "and back")
    assert time.monotonic() - begin < 60

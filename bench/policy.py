"""Network policies at size: how long the rules of one node take to plan and load, and what one change costs.

Run as root in a network namespace of its own: `unshare -n python -m bench.policy --policies 1000 --pods 5000`.
The cluster: `--pods` pods in `--namespaces` namespaces, `--local` of them on this node; `--policies` policies spread over the
namespaces, each with two peers (one by pods, one by namespace and pods), a block with a hole, and three ports.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable

from k1s.net.nft import Nft
from k1s.net.policy.apply import PolicyRules
from k1s.net.policy.model import Object, Pod, compile_policy, pod_of

_ROUNDS = 20


def make_policy(number: int, namespaces: int) -> Object:
    peers = [
        {"podSelector": {"matchLabels": {"app": f"app-{number % 7}"}}},
        {
            "namespaceSelector": {"matchLabels": {"team": f"t{number % 20}"}},
            "podSelector": {"matchLabels": {"tier": f"{number % 3}"}},
        },
        {"ipBlock": {"cidr": f"192.168.{number % 250}.0/24", "except": [f"192.168.{number % 250}.16/28"]}},
    ]
    ports = [{"port": 80}, {"port": 8000 + number % 100, "endPort": 8200}, {"protocol": "UDP", "port": 53}]
    spec: Object = {
        "podSelector": {"matchLabels": {"app": f"app-{number % 11}"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": peers, "ports": ports}],
        "egress": [{"to": peers[:2], "ports": ports}],
    }
    return {"metadata": {"namespace": f"ns-{number % namespaces}", "name": f"p{number}"}, "spec": spec}


def make_pod(number: int, namespaces: int) -> tuple[str, Pod]:
    labels = {"app": f"app-{number // namespaces % 11}", "tier": str(number % 3), "pod-template-hash": f"{number % 97:x}"}
    meta = {"namespace": f"ns-{number % namespaces}", "name": f"deploy-{number:05d}-{number:08x}", "labels": labels}
    ports = [{"name": "http", "containerPort": 8080}]
    obj = {"metadata": meta, "spec": {"containers": [{"name": "c", "ports": ports}]}}
    return f"{meta['namespace']}/{meta['name']}", pod_of(obj, (f"10.{42 + (number >> 16)}.{number >> 8 & 255}.{number & 255}",))


async def timed(what: str, work: Callable[[int], Awaitable[None]], rounds: int = _ROUNDS) -> None:
    took = []
    for number in range(rounds):
        begin = time.perf_counter()
        await work(number)
        took.append((time.perf_counter() - begin) * 1e3)
    print(f"{what:44} median {statistics.median(took):8.2f} ms   worst {max(took):8.2f} ms")


async def run(arguments: argparse.Namespace) -> None:
    nft = Nft()
    rules = PolicyRules(nft)
    count = arguments.namespaces
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(arguments.pods):
        rules.cluster.set_pod(*make_pod(number, count))
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    print(f"{'memory of 1,000 pods that no policy names':44} {used / arguments.pods:8.0f} KB")
    for number in range(count):
        rules.cluster.set_namespace(f"ns-{number}", {"team": f"t{number % 20}"})
    for number in range(arguments.local):
        key, pod = make_pod(number, count)
        rules.isolation.set_local(key, pod.namespace, pod.labels, pod.addresses)
    begin = time.perf_counter()
    for number in range(arguments.policies):
        obj = make_policy(number, count)
        rules.isolation.set_policy(f"{obj['metadata']['namespace']}/{obj['metadata']['name']}", compile_policy(obj))
    print(f"{'compile':44} {(time.perf_counter() - begin) * 1e3:8.0f} ms")
    begin = time.perf_counter()
    wanted = rules.isolation.wanted()
    rules.cluster.want(wanted.peers, wanted.ports)
    print(f"{'plan':44} {(time.perf_counter() - begin) * 1e3:8.0f} ms")
    begin = time.perf_counter()
    await rules.load()
    print(f"{'load into the kernel':44} {(time.perf_counter() - begin) * 1e3:8.0f} ms")
    elements = sum(len(found) for found in rules.cluster.elements(4).values())
    print(f"chains {len(wanted.verdicts)} + {len(wanted.rules)}, sets {len(wanted.peers)}, elements {elements}")
    await changes(rules, arguments)
    print(f"peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")
    await nft.close()


async def changes(rules: PolicyRules, arguments: argparse.Namespace) -> None:
    count = arguments.namespaces

    async def elsewhere(number: int) -> None:
        key, pod = make_pod(arguments.pods + number, count)
        rules.cluster.set_pod(key, pod)
        await rules.update()

    async def here(number: int) -> None:
        key, pod = make_pod(arguments.pods + 500 + number, count)
        rules.cluster.set_pod(key, pod)
        rules.isolation.set_local(key, pod.namespace, pod.labels, pod.addresses)
        await rules.update()

    async def policy(number: int) -> None:
        obj = make_policy(number, count)
        obj["spec"]["ingress"][0]["ports"].append({"port": 9000 + number})
        rules.isolation.set_policy(f"{obj['metadata']['namespace']}/{obj['metadata']['name']}", compile_policy(obj))
        await rules.update()

    async def namespace(number: int) -> None:
        rules.cluster.set_namespace(f"ns-{number % count}", {"team": f"t{(number + 7) % 20}"})
        await rules.update()

    await timed("a pod of another node comes", elsewhere)
    await timed("a pod of this node comes", here)
    await timed("a policy changes", policy)
    await timed("a namespace changes its labels", namespace)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("policies", 1000), ("pods", 5000), ("namespaces", 50), ("local", 110)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()

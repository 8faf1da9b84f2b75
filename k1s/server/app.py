"""The server: what starts, in order.

store > certificates > API server (cache, security) > listener > default objects > controllers > scheduler > add-ons > agent

Owns: that order, and ending in the opposite one. Called by: cli/server. Never does: the parts' work.
Every part runs in one Supervisor: the unexpected end of one ends the server, whose own supervisor starts it again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.base import http_server
from k1s.base.clock import REAL_CLOCK, Clock, parse_rfc3339
from k1s.base.host import default_address, host_name
from k1s.base.http import Answer, Handler, Request
from k1s.base.pid_file import write as write_pid_file
from k1s.base.pki import PkiError
from k1s.base.tasks import Supervisor
from k1s.base.tunnel import PATH as TUNNEL_PATH
from k1s.client import kubeconfig
from k1s.client.interface import InformerFactory, Object
from k1s.client.rest import RestClient
from k1s.client.transport import LocalTransport
from k1s.server.addons import app as addons
from k1s.server.addons.context import AddonSettings
from k1s.server.addresses import AddressFollower
from k1s.server.agent_process import AgentProcess
from k1s.server.apiserver import debug
from k1s.server.apiserver.app import ApiServer
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.apiserver.auditing.app import Audit, open_policy
from k1s.server.apiserver.auditing.file import LogFile
from k1s.server.apiserver.auditing.policy import PolicyError
from k1s.server.apiserver.config_file import ConfigFileError
from k1s.server.apiserver.encryption import app as encrypt
from k1s.server.apiserver.encryption.rotation import Rotation
from k1s.server.apiserver.encryption.store import EncryptedStore
from k1s.server.apiserver.subresources.streams import Streams
from k1s.server.apiserver_args import ArgumentError
from k1s.server.bootstrap import ensure_defaults
from k1s.server.certificates import ADMIN, FRONT_PROXY, ServerCertificates
from k1s.server.config import ServerConfig
from k1s.server.controllers import app as controllers
from k1s.server.controllers.config import CertificateSigners, ControllerConfig
from k1s.server.controllers.service_lb_plan import BalancerConfig
from k1s.server.controllers.service_lb_pool import configured_pools
from k1s.server.join import PATHS, JoinHandler
from k1s.server.observe import AGGREGATION, CONTROLLERS, DEFAULTS, observe
from k1s.server.removed_nodes import cut_off
from k1s.server.scheduler import app as scheduler
from k1s.server.security import Security
from k1s.server.tokens import JoinTokens, load_tokens
from k1s.server.tunnel import Tunnels
from k1s.storage.errors import StoreError
from k1s.storage.expiry import Expiry
from k1s.storage.interface import Store
from k1s.storage.open import open_store

log = logging.getLogger("k1s.server")

# In-process parts are trusted as the API server itself.
SERVER_USER = UserInfo("system:apiserver", ("system:masters", "system:authenticated"))
CONTROLLER_USER = UserInfo("system:kube-controller-manager", ("system:masters", "system:authenticated"))
ADDON_USER = UserInfo("system:k1s:addons", ("system:masters", "system:authenticated"))
SCHEDULER_USER = UserInfo("system:kube-scheduler", ("system:masters", "system:authenticated"))
EVENT_SECONDS = 3600.0
NODE_LEASES = "kube-node-lease"


class StartError(Exception):
    """The server cannot start for a reason that its user can put right; one line."""


async def run(
    config: ServerConfig,
    agent_argv: Sequence[str],
    *,
    run_dir: Path,
    node_name: str,
    step: Callable[[str], None],
    ready: Callable[[str], None],
    clock: Clock = REAL_CLOCK,
) -> None:
    """Serve until cancelled. `step` is told of each finished step, `ready` once, when the node is Ready (or the API, without)."""
    async with _store(config, clock) as store, _encryption(config, store, clock) as encryption:
        step("database open")
        address = config.advertise_address or default_address()
        certificates = ServerCertificates(config, clock, addresses=(host_name(), node_name, address))
        try:
            await asyncio.to_thread(certificates.ensure)
        except (PkiError, OSError) as error:
            raise StartError(str(error)) from error
        step("certificates valid")
        await _serve(config, encryption, certificates, agent_argv, run_dir, node_name, address, step, ready, clock)


async def _serve(
    config: ServerConfig,
    encryption: Rotation,
    certificates: ServerCertificates,
    agent_argv: Sequence[str],
    run_dir: Path,
    node_name: str,
    address: str,
    step: Callable[[str], None],
    ready: Callable[[str], None],
    clock: Clock,
) -> None:
    store = EncryptedStore(encryption.store, encryption.ring)
    try:
        server, client, security = _api_server(config, store, certificates, node_name, clock, encrypt.paths(encryption))
    except (ConfigFileError, ArgumentError) as error:
        raise StartError(str(error)) from error
    audit = _audit(config, server, security, clock)
    listener = await _listen(audit.wrap(server.handle) if audit else server.handle, config, certificates)
    steps = observe(server, config, listener)
    pid_file = run_dir / "server.json"
    began = clock.now()
    try:
        async with Supervisor() as tasks:
            await tasks.start("api-server", server.run)
            encryption.resume()
            server.admission = security.attach(server.informers, client, server.catalog, server.convert, server.dialer.connect)
            cut_off(server.informers, listener.drop)
            write_pid_file(pid_file)
            step(f"API server on port {listener.port}")
            await ensure_defaults(
                client,
                server.informers,
                config,
                advertise_address=address,
                client_ca=certificates.client_ca_pem,
                request_header_ca=certificates.ca("request-header-ca").certificate,
            )
            steps.done(*DEFAULTS)
            step("default objects")
            tasks.spawn("certificates", certificates.run(lambda: None))
            if not config.advertise_address:
                names, port = (host_name(), node_name), config.https_listen_port
                follower = AddressFollower(certificates, client, server.informers, clock, names=names, address=address, port=port)
                await tasks.start("addresses", follower.run)
            tasks.spawn("events-expiry", Expiry(store, clock, prefix="/registry/events/", ttl=EVENT_SECONDS).run(lambda: None))
            secret_tokens = security.secret_tokens(client, server.informers, ca=certificates.server_ca_pem)
            tasks.spawn("secret-tokens", secret_tokens.run(lambda: None))
            await tasks.start("aggregation", server.aggregation.run)
            steps.done(*AGGREGATION)
            await _start_controllers(tasks, server, config, certificates, "" if config.disable_agent else node_name, clock)
            steps.done(*CONTROLLERS)
            step("controllers and scheduler")
            # Nothing waits for them: a node may need one of them to become Ready.
            tasks.spawn("addons", _addons(server, config, certificates, clock))
            if not config.disable_agent:
                await tasks.start("agent", AgentProcess(agent_argv, run_dir / "agent.json", clock).run)
                await _node_ready(server.informers, node_name, began)
                step(f"node {node_name} Ready")
            ready("k1s is ready")
    finally:
        server.health.stopping = True
        pid_file.unlink(missing_ok=True)
        # Tunnels never end by themselves: the listener would wait for them.
        server.dialer.close()
        await listener.close()
        if audit is not None:
            await audit.close()


def _api_server(
    config: ServerConfig,
    store: Store,
    certificates: ServerCertificates,
    node_name: str,
    clock: Clock,
    paths: Mapping[str, Handler],
) -> tuple[ApiServer, RestClient, Security]:
    security = Security(config, clock, [certificates.service_account_key])
    kubelet_tls = certificates.client_context()
    load_tokens(config, certificates.server_ca_pem)
    tunnels = Tunnels(security.authenticate)
    joining: list[JoinHandler] = []

    async def join(request: Request) -> Answer:
        # Its client and informers are this server's own, so it is made at first use.
        if not joining:
            tokens = JoinTokens(config, server.informers, clock)
            joining.append(JoinHandler(config, certificates, tokens, client, server.informers, clock))
        return await joining[0].handle(request)

    server = ApiServer(
        store,
        authenticator=security,
        authorizer=security,
        config=config,
        clock=clock,
        impersonate=security.impersonate,
        handlers={**security.handlers(), **Streams(lambda: kubelet_tls).handlers()},
        paths={
            **security.paths(),
            **paths,
            **(debug.paths() if config.profiling else {}),
            **dict.fromkeys(PATHS, join),
            TUNNEL_PATH: tunnels.handle,
        },
        open_paths=(*PATHS, TUNNEL_PATH),
        proxy_identity=certificates.load_front_proxy,
        tunnels=tunnels,
        local_node="" if config.disable_agent else node_name,
    )
    tunnels.attach(server.informers, server.metrics)
    certificates.on_renewed.append(lambda name: server.aggregation.forget_identity() if name == FRONT_PROXY else None)
    client = RestClient(LocalTransport(server.handle, SERVER_USER), "k1s-server", clock=clock)
    return server, client, security


def _audit(config: ServerConfig, server: ApiServer, security: Security, clock: Clock) -> Audit | None:
    """Raises StartError."""
    try:
        policy = open_policy(config.audit_policy_file)
    except PolicyError as error:
        raise StartError(f"audit policy: {error}") from error
    if not config.audit_log_path:
        return None
    size, keep, days = config.audit_log_maxsize << 20, config.audit_log_maxbackup, config.audit_log_maxage
    file = LogFile(Path(config.audit_log_path), max_bytes=size, keep=keep, days=days)
    audit = Audit(file, server.catalog, clock, policy, security.reason)
    audit.register(server.metrics)
    return audit


async def _start_controllers(
    tasks: Supervisor,
    server: ApiServer,
    config: ServerConfig,
    certificates: ServerCertificates,
    node_name: str,
    clock: Clock,
) -> None:
    client_ca, kubelet_ca = certificates.ca("client-ca"), certificates.ca("kubelet-ca")
    settings = ControllerConfig(
        ca_bundle=certificates.server_ca_pem.decode(),
        cluster_cidr=config.cluster_cidr,
        control_plane_node=node_name,
        load_balancer=_balancer(config),
        signers=CertificateSigners(client_ca.certificate, client_ca.key, kubelet_ca.certificate, kubelet_ca.key),
    )
    manager = RestClient(LocalTransport(server.handle, CONTROLLER_USER), "kube-controller-manager", clock=clock)
    planner = RestClient(LocalTransport(server.handle, SCHEDULER_USER), "kube-scheduler", clock=clock)

    async def run_controllers(started: Callable[[], None]) -> None:
        await controllers.run(
            manager, server.informers, clock, settings, started, registry=server.metrics, catalog=server.catalog
        )

    async def run_scheduler(started: Callable[[], None]) -> None:
        await scheduler.run(planner, server.informers, clock, started)

    await tasks.start("controllers", run_controllers)
    await tasks.start("scheduler", run_scheduler)


async def _addons(server: ApiServer, config: ServerConfig, certificates: ServerCertificates, clock: Clock) -> None:
    def admin() -> bytes:
        pair = certificates.pair(ADMIN)
        host = "127.0.0.1" if config.bind_address in ("", "0.0.0.0", "::") else config.bind_address
        url = f"https://{f'[{host}]' if ':' in host else host}:{config.https_listen_port}"
        return kubeconfig.render(kubeconfig.Credentials(url, certificates.server_ca_pem, pair.certificate, pair.key))

    bundled = os.environ.get("K1S_IMAGES_DIR")
    images = (config.data_dir / "agent" / "images", *((Path(bundled),) if bundled else ()))
    settings = AddonSettings(config.server_dir, images, frozenset(config.disable), admin)
    client = RestClient(LocalTransport(server.handle, ADDON_USER), "k1s-addons", clock=clock)
    await addons.run(client, server.informers, server.catalog, clock, settings)


def _balancer(config: ServerConfig) -> BalancerConfig:
    """Who serves LoadBalancer Services, with which addresses."""
    pools = configured_pools(config.loadbalancer_pool, config.cluster_cidr, config.service_cidr)
    reserved = BalancerConfig().reserved | {("TCP", config.https_listen_port)}
    return BalancerConfig("servicelb" not in config.disable, pools, reserved)


@asynccontextmanager
async def _store(config: ServerConfig, clock: Clock) -> AsyncIterator[Store]:
    """The open store; closed, with what is volatile flushed, at the end."""
    try:
        config.server_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        config.database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        store = open_store(config.datastore_endpoint or str(config.database), clock=clock)
        await store.open()
    except (StoreError, OSError) as error:
        raise StartError(str(error)) from error
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def _encryption(config: ServerConfig, store: Store, clock: Clock) -> AsyncIterator[Rotation]:
    """What stored values are encrypted with."""
    wanted, file = config.secrets_encryption, config.encryption_provider_config
    try:
        rotation = await encrypt.open_encryption(store, config.credentials_dir, clock, wanted=wanted, provider_config=file)
    except (StoreError, OSError) as error:
        raise StartError(f"encryption at rest: {error}") from error
    try:
        yield rotation
    finally:
        await rotation.close()


async def _listen(handler: Handler, config: ServerConfig, certificates: ServerCertificates) -> http_server.Listener:
    try:
        return await http_server.listen(
            handler, host=config.bind_address, port=config.https_listen_port, tls=certificates.server_context()
        )
    except OSError as error:
        raise StartError(
            f"cannot listen on {config.bind_address}:{config.https_listen_port}: {os.strerror(error.errno or 0).lower()} "
            "(another server? use --https-listen-port)"
        ) from error


async def _node_ready(informers: InformerFactory, name: str, since: float) -> None:
    """Return once the Node of that name is Ready and its agent has shown a sign of life after `since`.

    The condition alone may be a memory of the last run.
    """
    nodes, leases = informers.informer(builtin("Node")), informers.informer(builtin("Lease"))
    done = asyncio.Event()

    def changed(old: Object | None, new: Object | None) -> None:
        if done.is_set():
            return  # handlers stay; every heartbeat comes by here
        node, lease = nodes.get(name), leases.get(name, NODE_LEASES)
        renewed = (lease or {}).get("spec", {}).get("renewTime")
        if node is not None and meta.is_true(node, "Ready") and renewed and parse_rfc3339(renewed) >= since:
            done.set()

    nodes.add_handler(changed)
    leases.add_handler(changed)
    await done.wait()

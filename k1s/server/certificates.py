"""The server's certificates: made at first start, renewed while running.

Owns: everything below {data_dir}/server/tls, the live TLS contexts, the admin kubeconfig.
Called by: server/app (ensure, contexts, run), server/join (signing). Never does: listen, decide who may have a certificate.

Four CAs: server-ca signs the API server, kubelet-ca the nodes' own listeners (so that no node can pass for the API server),
client-ca signs who asks, request-header-ca the proxy that speaks for users to extension API servers. Renewal loads the new
pair into the live SSLContext: connections that are open keep theirs, new ones get the new one, nothing restarts.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from k1s.base import pki
from k1s.base.clock import Clock
from k1s.base.files import read_if_exists, write_atomic
from k1s.client import kubeconfig
from k1s.server.config import ServerConfig

log = logging.getLogger("k1s.server.certificates")

# Sleeping towards a date a year off must survive a clock that is set meanwhile: look again this often.
_LONGEST_SLEEP = 3600.0
# A clock that says less has not been set yet (a board without a battery). Certificates made now start here instead.
_EARLIEST = 1_700_000_000.0


@dataclass(frozen=True, slots=True)
class Leaf:
    """One certificate that the server keeps for itself. `ca`: name of the CA that signs it."""

    name: str
    ca: str
    usage: str
    subject: pki.Subject


CAS = ("server-ca", "kubelet-ca", "client-ca", "request-header-ca")
ADMIN = "client-admin"
SERVING = "serving-kube-apiserver"
KUBELET_CLIENT = "client-kube-apiserver"
FRONT_PROXY = "client-auth-proxy"

_CLIENTS = (
    Leaf(ADMIN, "client-ca", "client", pki.Subject("system:admin", ("system:masters",))),
    Leaf("client-controller", "client-ca", "client", pki.Subject("system:kube-controller-manager")),
    Leaf("client-scheduler", "client-ca", "client", pki.Subject("system:kube-scheduler")),
    # The API server as the kubelet's client; kubelets let it in by system:kubelet-api-admin.
    Leaf(KUBELET_CLIENT, "client-ca", "client", pki.Subject("kube-apiserver", ("system:masters",))),
    Leaf(FRONT_PROXY, "request-header-ca", "client", pki.Subject("system:auth-proxy")),
)


class ServerCertificates:
    """`ensure()` once before listening, then `run` for as long as the server lives.

    `addresses` are what clients may call this host by, beside what the config says (node name, node address, ...).
    """

    def __init__(self, config: ServerConfig, clock: Clock, *, addresses: Iterable[str] = ()) -> None:
        self._config, self._clock = config, clock
        self._addresses = tuple(addresses)
        self._pairs: dict[str, pki.Pair] = {}
        self._contexts: list[tuple[str, ssl.SSLContext]] = []
        self.service_account_key = b""
        self.on_renewed: list[Callable[[str], None]] = []

    @property
    def directory(self) -> Path:
        return self._config.tls_dir

    def ca(self, name: str) -> pki.Pair:
        """One of CAS, with its key."""
        return self._pairs[name]

    def pair(self, name: str) -> pki.Pair:
        """A leaf by name; read it again after a renewal."""
        return self._pairs[name]

    @property
    def server_ca_pem(self) -> bytes:
        return self._pairs["server-ca"].certificate

    @property
    def client_ca_pem(self) -> bytes:
        return self._pairs["client-ca"].certificate

    def ensure(self) -> None:
        """Make what is missing, renew what is due or no longer says what it should, write the admin kubeconfig."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in CAS:
            self._pairs[name] = self._load(name) or self._create_ca(name)
        key_file = self.directory / "service.key"
        key = read_if_exists(key_file)
        if key is None:
            key = pki.new_key()
            write_atomic(key_file, key)
        self.service_account_key = key
        self.renew_due()
        self._write_kubeconfig()

    def renew_due(self) -> list[str]:
        """Renew every leaf that is due, missing or outdated; their names. Expired ones count as due: no one is asked."""
        renewed = [leaf.name for leaf in self._leaves() if self._refresh(leaf)]
        for name in renewed:
            for context in (c for n, c in self._contexts if n == name):
                self._load_into(context, name)
            for callback in self.on_renewed:
                callback(name)
        if ADMIN in renewed:
            self._write_kubeconfig()
        return renewed

    def set_addresses(self, addresses: Iterable[str]) -> None:
        """The host is reachable under other addresses now: a new serving certificate goes live at once."""
        self._addresses = tuple(addresses)
        self.renew_due()

    async def run(self, ready: Callable[[], None]) -> None:
        """Sleep until the next leaf is due, renew, repeat."""
        ready()
        while True:
            due = min(pki.validity(self._pairs[leaf.name].certificate).renew_at for leaf in self._leaves())
            await self._clock.sleep(min(max(due - self._clock.now(), 1.0), _LONGEST_SLEEP))
            try:
                self.renew_due()
            except OSError as error:
                # A full disk, most likely. A third of the life is left: no reason to stop serving.
                log.error("certificates are due but cannot be written: %s; trying again in an hour", error)
                await self._clock.sleep(_LONGEST_SLEEP)

    def server_context(self) -> ssl.SSLContext:
        """For the API server's listener. Client certificates are optional (tokens exist) but must be of client-ca."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=self.client_ca_pem.decode())
        self._load_into(context, SERVING)
        self._contexts.append((SERVING, context))
        return context

    def client_context(self) -> ssl.SSLContext:
        """For the API server's connections to the nodes' agents, whose certificates must be of their Node's name."""
        context = ssl.create_default_context(cadata=self.ca("kubelet-ca").certificate.decode())
        self._load_into(context, KUBELET_CLIENT)
        self._contexts.append((KUBELET_CLIENT, context))
        return context

    def load_front_proxy(self, context: ssl.SSLContext) -> None:
        """Show extension API servers who we are; load it again after `on_renewed` has named FRONT_PROXY."""
        self._load_into(context, FRONT_PROXY)

    def _now(self) -> float:
        return max(self._clock.now(), _EARLIEST)

    def _leaves(self) -> list[Leaf]:
        return [Leaf(SERVING, "server-ca", "server", pki.Subject("kube-apiserver", (), self._sans())), *_CLIENTS]

    def _sans(self) -> tuple[str, ...]:
        config = self._config
        first = ipaddress.ip_network(config.service_cidr.split(",")[0].strip(), strict=False)[1]
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{config.cluster_domain}"]
        names += ["localhost", "127.0.0.1", "::1", str(first), config.advertise_address]
        names += [*self._addresses, *config.tls_san]
        if config.bind_address not in ("", "0.0.0.0", "::"):
            names.append(config.bind_address)
        return tuple(sorted({name for name in names if name}))

    def _refresh(self, leaf: Leaf) -> bool:
        """Put the leaf into `_pairs`, made anew if need be; whether it was. A renewed leaf keeps its key."""
        old = self._pairs.get(leaf.name) or self._load(leaf.name)
        if old is not None and self._holds(leaf, old):
            self._pairs[leaf.name] = old
            return False
        key = old.key if old is not None else pki.new_key()
        certificate = pki.issue(self._pairs[leaf.ca], key, leaf.subject, usage=leaf.usage, now=self._now())
        pair = pki.Pair(certificate, key)
        pki.save(pair, *self._files(leaf.name))
        write_atomic(self._note(leaf.name), self._described(leaf))
        self._pairs[leaf.name] = pair
        log.info("certificate %s issued for %s", leaf.name, leaf.subject.common_name)
        return True

    def _holds(self, leaf: Leaf, pair: pki.Pair) -> bool:
        dates = pki.validity(pair.certificate)
        if self._now() >= dates.renew_at:  # one from the future is kept: it is the clock that is wrong
            return False
        note = read_if_exists(self._note(leaf.name))
        return note == self._described(leaf)

    def _note(self, name: str) -> Path:
        return self.directory / f"{name}.subject"

    def _described(self, leaf: Leaf) -> bytes:
        """What the leaf was made for, kept beside it: tells a change of SANs or CA without parsing certificates at start."""
        subject, ca = leaf.subject, pki.ca_hash(self._pairs[leaf.ca].certificate)
        return "\n".join([subject.common_name, *subject.organizations, "", *subject.sans, "", ca, ""]).encode()

    def _files(self, name: str) -> tuple[Path, Path]:
        return self.directory / f"{name}.crt", self.directory / f"{name}.key"

    def _load(self, name: str) -> pki.Pair | None:
        return pki.load(*self._files(name))

    def _create_ca(self, name: str) -> pki.Pair:
        certificate, key = self._files(name)
        if certificate.exists():
            # A new CA would cut off every node that trusts the old one; that is for a person to decide.
            # (A key without its certificate is what a power cut in the very first start leaves: nobody trusts it yet.)
            raise pki.PkiError(f"{certificate} is there but {key} is missing: restore it from a backup")
        now = self._now()
        pair = pki.create_ca(f"k1s-{name}@{int(now)}", now)
        pki.save(pair, certificate, key)
        return pair

    def _load_into(self, context: ssl.SSLContext, name: str) -> None:
        context.load_cert_chain(*self._files(name))

    def _write_kubeconfig(self) -> None:
        admin, config = self._pairs[ADMIN], self._config
        wanted = kubeconfig.Credentials(
            server=f"https://127.0.0.1:{config.https_listen_port}",
            ca=self.server_ca_pem,
            certificate=admin.certificate,
            key=admin.key,
        )
        path, mode = Path(config.write_kubeconfig), int(config.write_kubeconfig_mode, 8)
        current = path.stat().st_mode & 0o7777 if path.exists() else None
        if current != mode or read_if_exists(path) != kubeconfig.render(wanted):
            kubeconfig.write(path, wanted, mode)

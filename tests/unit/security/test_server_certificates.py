"""The server's certificates over a year of virtual time."""

import asyncio
import ssl
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from k1s.base import pki
from k1s.base.clock import VirtualClock
from k1s.client import kubeconfig
from k1s.server.certificates import ADMIN, SERVING, ServerCertificates
from k1s.server.config import ServerConfig


@pytest.fixture(autouse=True)
def long_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A year of hourly looks at the clock takes seconds even in virtual time."""
    monkeypatch.setattr("k1s.server.certificates._LONGEST_SLEEP", pki.DAY / 2)


def config(tmp_path: Path) -> ServerConfig:
    return ServerConfig(data_dir=tmp_path, write_kubeconfig=str(tmp_path / "k1s.yaml"))


def certificates(tmp_path: Path, clock: VirtualClock, *addresses: str) -> ServerCertificates:
    out = ServerCertificates(config(tmp_path), clock, addresses=addresses)
    out.ensure()
    return out


def test_first_start_makes_everything_private(tmp_path: Path) -> None:
    made = certificates(tmp_path, VirtualClock(), "node-1", "192.0.2.7")
    sans = pki.read_certificate(made.pair(SERVING).certificate).subject.sans
    wanted = {"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
    assert wanted | {"localhost", "127.0.0.1", "10.43.0.1", "node-1", "192.0.2.7"} <= set(sans)
    admin = kubeconfig.read(tmp_path / "k1s.yaml")
    assert pki.read_certificate(admin.certificate).subject == pki.Subject("system:admin", ("system:masters",))
    assert admin.server == "https://127.0.0.1:6443"
    assert admin.ca == made.server_ca_pem
    for file in [*made.directory.glob("*.key"), tmp_path / "k1s.yaml"]:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    clock = VirtualClock()
    certificates(tmp_path, clock)
    before = {p: (p.read_bytes(), p.stat().st_ino) for p in tmp_path.rglob("*") if p.is_file()}
    certificates(tmp_path, clock)
    assert {p: (p.read_bytes(), p.stat().st_ino) for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_new_address_gives_a_new_serving_certificate_with_the_same_key(tmp_path: Path) -> None:
    clock = VirtualClock()
    first = certificates(tmp_path, clock, "192.0.2.7")
    old_admin, old = first.pair(ADMIN), first.pair(SERVING)
    first.set_addresses(["192.0.2.8"])
    assert "192.0.2.8" in pki.read_certificate(first.pair(SERVING).certificate).subject.sans
    assert first.pair(SERVING).key == old.key
    assert first.pair(ADMIN) == old_admin


async def test_leaves_are_renewed_while_running_and_the_live_context_serves_them(tmp_path: Path) -> None:
    clock = VirtualClock()
    made = certificates(tmp_path, clock)
    context = made.server_context()
    loaded: list[str] = []
    made._load_into = lambda _context, name: loaded.append(name)  # type: ignore[method-assign]
    task = asyncio.create_task(made.run(lambda: None))
    old = made.pair(SERVING).certificate
    await clock.advance(200 * pki.DAY)
    assert made.pair(SERVING).certificate == old
    await clock.advance(60 * pki.DAY)
    assert made.pair(SERVING).certificate != old
    assert loaded == [SERVING]
    assert kubeconfig.read(tmp_path / "k1s.yaml").certificate == made.pair(ADMIN).certificate
    assert pki.validity(made.pair(ADMIN).certificate).not_after > clock.now() + 300 * pki.DAY
    assert context is not None
    task.cancel()


def test_expired_leaves_are_renewed_at_boot(tmp_path: Path) -> None:
    certificates(tmp_path, VirtualClock(1_700_000_000.0))
    later = VirtualClock(1_700_000_000.0 + 500 * pki.DAY)
    made = certificates(tmp_path, later)
    assert pki.validity(made.pair(SERVING).certificate).not_after > later.now()


def test_half_a_ca_is_an_error_and_not_a_new_ca(tmp_path: Path) -> None:
    made = certificates(tmp_path, VirtualClock())
    (made.directory / "client-ca.key").unlink()
    with pytest.raises(pki.PkiError, match="is missing"):
        certificates(tmp_path, VirtualClock())


def test_the_kubeconfigs_mode_is_what_was_asked(tmp_path: Path) -> None:
    clock = VirtualClock()
    wanted = replace(config(tmp_path), write_kubeconfig_mode="644")
    for options in (config(tmp_path), wanted):
        ServerCertificates(options, clock).ensure()
    assert stat.S_IMODE((tmp_path / "k1s.yaml").stat().st_mode) == 0o644


async def test_a_full_disk_does_not_end_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = VirtualClock()
    made = certificates(tmp_path, clock)
    old = made.pair(SERVING).certificate

    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pki, "save", fail)
        task = asyncio.create_task(made.run(lambda: None))
        await clock.advance(260 * pki.DAY)
        assert not task.done()
    await clock.advance(pki.DAY)
    assert made.pair(SERVING).certificate != old
    task.cancel()


def test_a_board_without_a_clock_can_start(tmp_path: Path) -> None:
    first = certificates(tmp_path, VirtualClock(1000.0))
    assert pki.validity(first.server_ca_pem).not_after > 1_900_000_000
    ca, leaf = first.server_ca_pem, first.pair(SERVING).certificate
    # The clock is set at last; the leaf has expired by then.
    second = certificates(tmp_path, VirtualClock(1_800_000_000.0))
    assert second.server_ca_pem == ca
    assert second.pair(SERVING).certificate != leaf
    # Back at 1970 after a power cut: nothing is made anew for a clock that is wrong.
    third = certificates(tmp_path, VirtualClock(1000.0))
    assert third.pair(SERVING).certificate == second.pair(SERVING).certificate


def shown_by(context: ssl.SSLContext, trusted: bytes) -> bytes:
    """The certificate that a listener with this context presents in a new handshake, DER."""
    client = ssl.create_default_context(cadata=trusted.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    a = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    b = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(6):
        for side in (a, b):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return a.getpeercert(binary_form=True) or b""


def test_new_connections_get_the_new_certificate_without_a_restart(tmp_path: Path) -> None:
    made = certificates(tmp_path, VirtualClock(time.time()), "192.0.2.7")
    context = made.server_context()
    before = shown_by(context, made.server_ca_pem)
    made.set_addresses(["192.0.2.8"])
    after = shown_by(context, made.server_ca_pem)
    assert before != after
    assert ssl.DER_cert_to_PEM_cert(after).encode().split() == made.pair(SERVING).certificate.split()

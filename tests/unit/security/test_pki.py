"""Keys, certificates and the files they live in."""

import os
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from k1s.base import files, pki
from k1s.client import kubeconfig

NOW = 1_800_000_000.0


def test_a_leaf_says_who_it_is_for_and_who_signed_it() -> None:
    ca, other = pki.create_ca("ca", NOW), pki.create_ca("ca", NOW)
    leaf = pki.issue(ca, pki.new_key(), pki.Subject("u", ("g1", "g2")), usage="client", now=NOW)
    assert pki.read_certificate(leaf).subject == pki.Subject("u", ("g1", "g2"))
    assert pki.signed_by(leaf, ca.certificate)
    assert not pki.signed_by(leaf, other.certificate)


@pytest.mark.parametrize("start", [NOW, 2_600_000_000.0])  # after 2050 dates are GeneralizedTime
def test_validity_is_read_without_the_library(start: float) -> None:
    leaf = pki.issue(pki.create_ca("ca", start), pki.new_key(), pki.Subject("u"), usage="client", now=start)
    dates = pki.validity(leaf)
    assert dates.not_before == start - pki.BACKDATE
    assert dates.not_after == start + pki.LEAF_LIFE
    assert start + pki.LEAF_LIFE * 0.6 < dates.renew_at < start + pki.LEAF_LIFE * 0.67


def test_validity_does_not_import_cryptography(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_bytes(pki.create_ca("ca", NOW).certificate)
    read = "import sys; from k1s.base import pki; pki.validity(open(sys.argv[1], 'rb').read())"
    code = read + "; assert 'cryptography' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "c.pem")], check=True)


def test_a_leaf_does_not_outlive_its_ca() -> None:
    ca = pki.create_ca("ca", NOW, life=10 * pki.DAY)
    leaf = pki.issue(ca, pki.new_key(), pki.Subject("u"), usage="client", now=NOW)
    assert pki.validity(leaf).not_after == NOW + 10 * pki.DAY


def test_of_a_csr_only_the_key_is_believed() -> None:
    ca, key = pki.create_ca("ca", NOW), pki.new_key()
    csr = pki.make_csr(key, pki.Subject("system:admin", ("system:masters",), ("evil.example",)))
    leaf = pki.issue_for_csr(ca, csr, pki.Subject("system:node:n", ("system:nodes",)), usage="client", now=NOW)
    read = pki.read_certificate(leaf)
    assert read.subject == pki.Subject("system:node:n", ("system:nodes",))
    assert read.key_fingerprint == pki.read_csr(csr).key_fingerprint


def test_a_csr_that_was_tampered_with_is_refused() -> None:
    import base64

    lines = pki.make_csr(pki.new_key(), pki.Subject("abcdef")).decode().strip().splitlines()
    der = base64.b64decode("".join(lines[1:-1])).replace(b"abcdef", b"abcdeg")
    forged = "\n".join([lines[0], base64.b64encode(der).decode(), lines[-1]]).encode()
    with pytest.raises(pki.PkiError, match="not signed by its own key"):
        pki.read_csr(forged)


@pytest.mark.parametrize("junk", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"])
def test_junk_is_a_pki_error(junk: bytes) -> None:
    for read in (pki.validity, pki.read_certificate, pki.read_csr):
        with pytest.raises(pki.PkiError):
            read(junk)


def test_private_files_are_never_wider_than_their_mode(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        pki.save(pki.Pair(b"c", b"k"), tmp_path / "x" / "a.crt", tmp_path / "x" / "a.key")
        files.write_atomic(tmp_path / "f", b"1", 0o640)
    finally:
        os.umask(old)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "x").iterdir()}
    assert modes == {"a.crt": 0o644, "a.key": 0o600}
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_atomic(tmp_path / "f", b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_atomic(tmp_path / "f", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


def test_the_chain_satisfies_openssl(tmp_path: Path) -> None:
    import time

    now = time.time()
    ca = pki.create_ca("server-ca", now)
    key = pki.new_key()
    pair = pki.Pair(pki.issue(ca, key, pki.Subject("s", (), ("localhost", "127.0.0.1")), usage="server", now=now), key)
    pki.save(pair, tmp_path / "s.crt", tmp_path / "s.key")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "s.crt", tmp_path / "s.key")
    client = ssl.create_default_context(cadata=ca.certificate.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    c_in, c_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    a, b = client.wrap_bio(c_in, c_out, server_hostname="127.0.0.1"), server.wrap_bio(c_out, c_in, server_side=True)
    done: set[str] = set()
    for _ in range(6):
        for name, side in (("a", a), ("b", b)):
            try:
                side.do_handshake()
                done.add(name)
            except ssl.SSLWantReadError:
                continue
    assert done == {"a", "b"}


def test_a_kubeconfig_is_read_as_it_was_written(tmp_path: Path) -> None:
    wanted = kubeconfig.Credentials("https://127.0.0.1:6443", b"ca", b"cert", b"key")
    kubeconfig.write(tmp_path / "c.yaml", wanted, 0o600)
    assert kubeconfig.read(tmp_path / "c.yaml") == wanted
    assert stat.S_IMODE((tmp_path / "c.yaml").stat().st_mode) == 0o600
    with pytest.raises(kubeconfig.KubeconfigError):
        kubeconfig.read(tmp_path / "absent.yaml")

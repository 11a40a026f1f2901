"""Loading and reloading of the server's TLS files."""

import datetime as dt
import logging

import pytest
from cryptography import x509

from inferd.config.security import ClientCertificates, TlsSettings
from inferd.security.files import BadFileError, FileWatcher
from inferd.security.tls.server_tls import ServerTls
from tests.certificates import DAY, HOUR, LOCAL_NAMES, Authority


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def files(authority, tmp_path):
    return authority.issue(*LOCAL_NAMES).save(tmp_path)


def _settings(files, ca=None):
    required = ClientCertificates.NONE if ca is None else ClientCertificates.REQUIRED
    return TlsSettings(cert_file=files.certificate, key_file=files.key, client_ca_file=ca, client_certificates=required)


def test_reloads_a_changed_pair(authority, files, tmp_path):
    """New connections use it."""
    tls, watcher = ServerTls(_settings(files)), FileWatcher()
    tls.watch(watcher)
    tls.load()
    before = tls.http_context()
    watcher.poll()
    assert tls.http_context() is before
    authority.issue(*LOCAL_NAMES, not_after=2 * HOUR).save(tmp_path)
    watcher.poll()
    watcher.poll()
    assert tls.http_context() is not before
    assert watcher.failures == {"tls": 0}


def test_keeps_the_old_pair_if_the_new_one_is_bad(authority, files, caplog):
    """The rejection is logged and counted."""
    tls, watcher = ServerTls(_settings(files)), FileWatcher()
    tls.watch(watcher)
    tls.load()
    before, expires = tls.http_context(), tls.expiry_timestamps
    files.key.write_bytes(authority.issue(*LOCAL_NAMES).key)
    with caplog.at_level(logging.ERROR):
        watcher.poll()
        watcher.poll()
    assert tls.http_context() is before
    assert (tls.expiry_timestamps, watcher.failures) == (expires, {"tls": 1})
    (line,) = caplog.records
    assert "got another key" in line.__dict__["reason"]


def test_keeps_all_files_if_one_is_bad(authority, files, tmp_path):
    """A good pair beside bad CA certificates is not used."""
    ca = Authority("clients").save(tmp_path)
    tls = ServerTls(_settings(files, ca))
    tls.load()
    before = tls.http_context()
    authority.issue(*LOCAL_NAMES).save(tmp_path)
    ca.write_bytes(b"")
    with pytest.raises(BadFileError, match="an empty file"):
        tls.load()
    assert tls.http_context() is before


def _expiry(file):
    return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc.timestamp()


def test_reports_expiry(files, tmp_path):
    """Of the certificate and of the CA certificates of clients."""
    tls = ServerTls(_settings(files, Authority("clients", not_after=DAY).save(tmp_path)))
    tls.load()
    assert set(tls.expiry_timestamps) == {"certificate", "client_ca"}
    assert tls.expiry_timestamps["certificate"] == _expiry(files.certificate)
    assert tls.expiry_timestamps["client_ca"] == _expiry(tmp_path / "ca.pem")
    assert tls.lifetimes_s == {"certificate": 2 * 3600, "client_ca": 2 * 86400}


def test_logs_expiry_once(authority, tmp_path, caplog):
    """When a tenth of the time is left, when none is, and again for another certificate."""
    files = authority.issue(*LOCAL_NAMES, not_after=HOUR).save(tmp_path)
    moment = dt.datetime.fromtimestamp(_expiry(files.certificate), dt.UTC) - HOUR
    tls, watcher = ServerTls(_settings(files), now=lambda: moment), FileWatcher()
    tls.watch(watcher)
    tls.load()
    expires_at, lifetime_s = tls.expiry_timestamps["certificate"], tls.lifetimes_s["certificate"]
    for left_s in (0.11 * lifetime_s, 0.09 * lifetime_s, 1.0, -1.0, -9.0):
        moment = dt.datetime.fromtimestamp(expires_at - left_s, dt.UTC)
        watcher.poll()
    texts = [(line.levelname, line.message.partition(":")[0]) for line in caplog.records]
    assert texts == [("WARNING", "certificate expires soon"), ("ERROR", "certificate has expired")]
    assert {line.__dict__["file"] for line in caplog.records} == {str(files.certificate)}
    authority.issue(*LOCAL_NAMES, not_after=DAY).save(tmp_path)
    watcher.poll()
    watcher.poll()
    moment += 2 * DAY
    watcher.poll()
    assert [line.levelname for line in caplog.records].count("ERROR") == 2


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o640, 0), (0o644, 1)])
def test_warns_of_a_world_readable_key(files, caplog, mode, warnings):
    """Not an error: Kubernetes mounts secrets like this."""
    files.key.chmod(mode)
    with caplog.at_level(logging.WARNING):
        ServerTls(_settings(files)).load()
    assert [line.getMessage() for line in caplog.records] == ["private key file is readable by every user"] * warnings


def test_requires_a_certificate():
    """Settings without one are rejected."""
    with pytest.raises(ValueError, match="expected settings with a certificate and its key"):
        ServerTls(TlsSettings())


def test_requires_loading_first(files):
    """A programming error raises at once."""
    with pytest.raises(RuntimeError, match="not loaded yet"):
        ServerTls(_settings(files)).http_context()

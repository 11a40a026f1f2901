"""Start-up of authentication and authorization."""

from pathlib import Path

import pytest

from inferd.config.security import SecuritySettings
from inferd.config.settings import Settings
from inferd.security.files import BadFileError, FileWatcher
from inferd.security.setup import Security
from inferd.security.tls.transport import Transport


def test_no_interceptor_without_authentication() -> None:
    """Calls then cost nothing extra."""
    assert Security(SecuritySettings()).interceptors == ()
    assert len(Security(SecuritySettings(tokens_file="tokens.yaml")).interceptors) == 1


@pytest.mark.parametrize("bad", ["tokens_file", "policy_file", "jwks_file"])
def test_bad_file_fails_the_start(tmp_path: Path, bad: str) -> None:
    """The error names the setting and the file."""
    good = {"tokens_file": "[]", "policy_file": 'rules: [{principals: ["*"]}]'}
    for name, content in good.items():
        (tmp_path / name).write_text(content)
    files = {name: tmp_path / name for name in good}
    settings = {**files, "jwt": {"jwks_file": tmp_path / bad, "issuer": "i", "audience": ["a"]}}
    if bad != "jwks_file":
        del settings["jwt"]
        files[bad].write_text("nonsense")
    security = Security(SecuritySettings(**settings))
    setting = f"security.{'jwt.' if bad == 'jwks_file' else ''}{bad}"
    with pytest.raises(BadFileError, match=f"^{setting}: {tmp_path}/{bad}"):
        security.start()


def test_bad_certificate_fails_the_start(tmp_path: Path) -> None:
    """As do the files of TLS."""
    tls = {"cert_file": tmp_path / "cert.pem", "key_file": tmp_path / "key.pem"}
    transport = Transport(Settings.model_validate({"security": {"tls": tls}}), FileWatcher())
    with pytest.raises(BadFileError, match=f"^security.tls: {tmp_path}/cert.pem: "):
        transport.start()

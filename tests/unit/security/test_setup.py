"""Start-up of authentication and authorization."""

from pathlib import Path

import pytest

from inferd.config.security import SecuritySettings
from inferd.security.files import BadFileError
from inferd.security.setup import Security


def test_no_interceptor_without_authentication() -> None:
    """Calls then cost nothing extra."""
    assert Security(SecuritySettings()).interceptors == ()
    assert len(Security(SecuritySettings(tokens_file="tokens.yaml")).interceptors) == 1


@pytest.mark.parametrize("bad", ["tokens_file", "policy_file", "jwks_file"])
def test_bad_file_fails_the_start(tmp_path: Path, bad: str) -> None:
    """The error names the file."""
    good = {"tokens_file": "[]", "policy_file": 'rules: [{principals: ["*"]}]'}
    for name, content in good.items():
        (tmp_path / name).write_text(content)
    files = {name: tmp_path / name for name in good}
    settings = {**files, "jwt": {"jwks_file": tmp_path / bad, "issuer": "i", "audience": ["a"]}}
    if bad != "jwks_file":
        del settings["jwt"]
        files[bad].write_text("nonsense")
    security = Security(SecuritySettings(**settings))
    with pytest.raises(BadFileError, match=bad):
        security.start()

"""Settings of security that are refused, and that tell nothing of what they should not hold."""

import pytest
import yaml

from inferd.config import SettingsError
from tests.unit.config.conftest import Load


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"policy_file": "p"}, "policy_file: expected a tokens_file, jwt or spiffe beside it"),
        ({"jwt": {"jwks_file": "k", "audience": ["a"]}}, "jwt.issuer: expected the issuer of the tokens"),
        ({"jwt": {"jwks_file": "k", "issuer": "i"}}, "jwt.audience: expected the audience of the tokens"),
        ({"jwt": {"jwks_file": "k", "jwks_url": "https://k"}}, "jwks_url: expected either jwks_file or jwks_url"),
        ({"spiffe": {"trust_domains": ["spiffe://prod"]}}, "expected trust domains in lower case"),
    ],
)
def test_settings_that_make_no_sense_are_refused(load: Load, settings: dict, complaint: str) -> None:
    """With the name of the one to change."""
    with pytest.raises(SettingsError, match=complaint):
        load(yaml.safe_dump({"security": settings}))


@pytest.mark.parametrize("url", ["https://user:PLANTED@issuer.test/keys", "http://issuer.test/PLANTED"])
def test_urls_that_are_refused_are_not_quoted(load: Load, url: str) -> None:
    """They may have a password in them."""
    with pytest.raises(SettingsError, match=r"jwt\.jwks_url: expected https") as refused:
        load(yaml.safe_dump({"security": {"jwt": {"jwks_url": url, "issuer": "i", "audience": ["a"]}}}))
    assert "PLANTED" not in str(refused.value)

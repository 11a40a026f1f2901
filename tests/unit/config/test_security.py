"""Invalid security settings, and errors that quote no secrets."""

import pytest
import yaml

from inferd.config.validation import SettingsError
from tests.unit.config.conftest import Load


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"policy_file": "p"}, "policy_file: expected tokens_file, jwt or spiffe to be set too"),
        ({"jwt": {"jwks_file": "k", "audience": ["a"]}}, "jwt.issuer: expected the issuer of the tokens"),
        ({"jwt": {"jwks_file": "k", "issuer": "i"}}, "jwt.audience: expected the audience of the tokens"),
        ({"jwt": {"jwks_file": "k", "jwks_url": "https://k"}}, "jwks_url: expected either jwks_file or jwks_url"),
        ({"spiffe": {"trust_domains": ["spiffe://prod"]}}, "expected trust domains in lower case"),
    ],
)
def test_rejects_invalid_combinations(load: Load, settings: dict, complaint: str) -> None:
    """The error names the setting to change."""
    with pytest.raises(SettingsError, match=complaint):
        load(yaml.safe_dump({"security": settings}))


@pytest.mark.parametrize("url", ["https://user:PLANTED@issuer.test/keys", "http://issuer.test/PLANTED"])
def test_errors_do_not_quote_urls(load: Load, url: str) -> None:
    """URLs may contain a password."""
    with pytest.raises(SettingsError, match=r"jwt\.jwks_url: expected https") as caught:
        load(yaml.safe_dump({"security": {"jwt": {"jwks_url": url, "issuer": "i", "audience": ["a"]}}}))
    assert "PLANTED" not in str(caught.value)

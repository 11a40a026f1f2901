"""Calls that a person may try on a server that has just started, as they have to be made for its settings."""

import sys
from collections.abc import Sequence
from pathlib import Path

from inferd import demo
from inferd.config.security import ClientCertificates, SecuritySettings

#: Where to call a server that listens on every interface: certificates know such an address.
_CALLED = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  nothing listens there


def proposed_calls(security: SecuritySettings, address: str, *, demonstrating: bool) -> Sequence[str]:
    """Return commands for a shell; what only the caller knows stands in capitals."""
    host, _, port = address.rpartition(":")
    address = f"{_CALLED.get(host, host)}:{port}"
    inferd, grpcurl = _options(security)
    calls = [f"{_program()} models --address {address}{inferd}", f"grpcurl {grpcurl} {address} list"]
    if demonstrating:
        picture = f"--output label --input X=@{demo.DIGIT}"
        calls.insert(0, f"{_program()} infer digits --address {address}{inferd} {picture}")
    return calls


def _options(security: SecuritySettings) -> tuple[str, str]:
    """Return the options of the command line and of grpcurl."""
    inferd, grpcurl = "", "-plaintext"
    if security.tls.enabled:
        inferd, grpcurl = " --ca CA.pem", "-cacert CA.pem"
    if security.tls.client_certificates is ClientCertificates.REQUIRED:
        inferd += " --certificate ME.pem --key ME.key"
        grpcurl += " -cert ME.pem -key ME.key"
    if security.tokens_file is not None or security.jwt.enabled:
        inferd += " --token-file TOKEN"
        grpcurl += ' -H "authorization: Bearer $(cat TOKEN)"'
    return inferd, grpcurl


def _program() -> str:
    """Return this program as it was called, so that the calls we propose work where it is not on the path."""
    return sys.argv[0] if Path(sys.argv[0]).name == "inferd" else "inferd"

"""Authentication, TLS, Services, network policy, routes and the Ingress."""

from typing import Any

import pytest
import yaml

from tests.chart.rendering import (
    CHART,
    RefusedError,
    Values,
    container,
    helm,
    of_scenario,
    pod,
    rendered,
    server_settings,
)

SELECTOR = {"app.kubernetes.io/name": "inferd", "app.kubernetes.io/instance": "rel"}
CERTIFICATE = {"enabled": True, "existingSecret": "certificate"}


def test_secrets_are_whole_volumes_readable_by_group() -> None:
    """A file mounted by subPath would not change with its Secret."""
    objects = of_scenario("tls-auth")
    settings = server_settings(objects)["security"]
    files = [settings["tokens_file"], settings["policy_file"], *_files(settings["tls"])]
    mounts = {mount["mountPath"]: mount for mount in container(objects)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod(objects)["volumes"]}
    for file in files:
        folder, _, name = file.rpartition("/")
        mount = mounts[folder]
        assert "subPath" not in mount
        assert mount["readOnly"] is True
        source = volumes[mount["name"]].get("secret", {})
        assert name in {item["path"] for item in source.get("items", ())} or mount["name"] == "policy"
        assert source.get("defaultMode", 0o440) == 0o440 or mount["name"] == "client-ca"
    assert pod(objects)["securityContext"]["fsGroup"]


def _files(tls: dict[str, str]) -> list[str]:
    assert tls["client_certificates"] == "required"
    return [tls["cert_file"], tls["key_file"], tls["client_ca_file"]]


def test_policy_has_its_own_config_map() -> None:
    """Changes are reloaded without new pods."""
    policy = of_scenario("tls-auth")["ConfigMap", "rel-inferd-policy"]
    assert yaml.safe_load(policy["data"]["policy.yaml"])["rules"][0]["principals"] == ["token:alice"]


def test_jwks_come_from_config_map() -> None:
    """With the issuer of config."""
    objects = of_scenario("everything")
    jwt = server_settings(objects, "rel-models")["security"]["jwt"]
    assert jwt == {
        "issuer": "https://issuer.example",
        "audience": ["inferd"],
        "jwks_file": "/etc/inferd/jwks/jwks.json",
    }
    (volume,) = (each for each in pod(objects)["volumes"] if each["name"] == "jwks")
    assert volume["configMap"] == {"name": "issuer-keys", "items": [{"key": "jwks.json", "path": "jwks.json"}]}


def test_certificate_has_names_of_all_services() -> None:
    """With a type of key that gRPC's clients support."""
    spec = of_scenario("tls-auth")["Certificate", "rel-inferd"]["spec"]
    assert {"rel-inferd.ns.svc", "rel-inferd-headless.ns.svc", "inferd.example.com"} <= set(spec["dnsNames"])
    assert (spec["privateKey"]["algorithm"], spec["privateKey"]["size"]) == ("ECDSA", 256)
    assert spec["issuerRef"] == {"name": "internal", "kind": "Issuer", "group": "cert-manager.io"}
    volumes = {volume["name"]: volume for volume in pod(of_scenario("tls-auth"))["volumes"]}
    assert volumes["tls"]["secret"]["secretName"] == spec["secretName"]


def test_service_account_has_no_token() -> None:
    """The server never calls Kubernetes; an existing account can be used instead."""
    account = rendered()["ServiceAccount", "rel-inferd"]
    assert account["automountServiceAccountToken"] is False
    other = rendered({"serviceAccount": {"create": False, "name": "mine"}})
    assert pod(other)["serviceAccountName"] == "mine"
    assert not any(kind == "ServiceAccount" for kind, _ in other)


@pytest.mark.parametrize("of_type", ["ClusterIP", "NodePort", "LoadBalancer"])
def test_services_target_named_ports(of_type: str) -> None:
    """Those of calls and of metrics apart: metrics are internal whatever the type of the Service for calls."""
    service: Values = {"type": of_type, "grpcPort": 443, "httpPort": 80, "metricsPort": 443, "annotations": {"a": "b"}}
    objects = rendered({"service": service})
    calls, headless, metrics = (objects["Service", f"rel-inferd{end}"] for end in ("", "-headless", "-metrics"))
    assert calls["metadata"]["annotations"] == {"a": "b"}
    assert calls["spec"]["type"] == of_type
    assert headless["spec"]["clusterIP"] == "None"
    assert metrics["spec"]["type"] == "ClusterIP"
    assert "annotations" not in metrics["metadata"]
    grpc = {"name": "grpc", "port": 443, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"}
    http = {"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"}
    scrapes = {"name": "metrics", "port": 443, "targetPort": "metrics", "appProtocol": "http"}
    assert calls["spec"]["ports"] == headless["spec"]["ports"] == [grpc, http]
    assert metrics["spec"]["ports"] == [scrapes]
    assert all(each["spec"]["selector"] == SELECTOR for each in (calls, headless, metrics))
    encrypted = [each for (kind, _), each in rendered({"tls": CERTIFICATE}).items() if kind == "Service"]
    assert {port["appProtocol"] for each in encrypted for port in each["spec"]["ports"]} == {"https"}


def test_services_have_configured_ip_families() -> None:
    """All of them, and the server listens on IPv6; settings of load balancers apply to the Service for calls only."""
    objects = of_scenario("everything")
    calls, *others = (objects["Service", f"rel-models{end}"]["spec"] for end in ("", "-headless", "-metrics"))
    for spec in (calls, *others):
        assert (spec["ipFamilyPolicy"], spec["ipFamilies"]) == ("RequireDualStack", ["IPv6", "IPv4"])
    outside = {
        "loadBalancerClass": "example.com/internal",
        "loadBalancerSourceRanges": ["10.0.0.0/8", "fd00::/8"],
        "externalTrafficPolicy": "Local",
        "trafficDistribution": "PreferClose",
    }
    assert outside.items() <= calls.items()
    assert not any(set(outside) & set(spec) for spec in others)
    plain = rendered()["Service", "rel-inferd"]["spec"]
    assert set(plain) == {"type", "selector", "ports"}


@pytest.mark.parametrize(
    ("service", "host"),
    [
        ({}, "0.0.0.0"),
        ({"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}, "0.0.0.0"),
        ({"ipFamilies": ["IPv6"]}, "[::]"),
        ({"ipFamilyPolicy": "PreferDualStack"}, "[::]"),
    ],
)
def test_server_listens_on_ports_of_services(service: Values, host: str) -> None:
    """In its file, and in the flag that overrides the image's environment."""
    objects = rendered({"service": service})
    arguments = container(objects)["args"]
    assert arguments[arguments.index("--host") + 1] == server_settings(objects)["server"]["host"] == host


def test_disruption_budget_allows_node_drains() -> None:
    """One replica at a time, and replicas that are not ready at any time."""
    spec = rendered()["PodDisruptionBudget", "rel-inferd"]["spec"]
    assert spec["maxUnavailable"] == 1
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert spec["selector"]["matchLabels"] == SELECTOR


def test_http_can_be_switched_off() -> None:
    """Nothing of it is left: the server does not listen, and neither Services nor network policy have the port."""
    objects = rendered({"http": {"enabled": False}})
    assert server_settings(objects)["server"]["http_port"] == "none"
    assert [port["name"] for port in container(objects)["ports"]] == ["grpc", "metrics"]
    services = [each["spec"]["ports"] for (kind, _), each in objects.items() if kind == "Service"]
    assert {port["name"] for ports in services for port in ports} == {"grpc", "metrics"}
    ports = [each["ports"] for each in objects["NetworkPolicy", "rel-inferd"]["spec"]["ingress"]]
    assert ports == [[{"port": "grpc"}], [{"port": "metrics"}]]


def test_network_policy_allows_three_ports_and_dns() -> None:
    """If callers are listed, the test pod and the Job are too; those over HTTP are those over gRPC, or listed."""
    spec = rendered()["NetworkPolicy", "rel-inferd"]["spec"]
    assert spec["ingress"] == [{"ports": [{"port": name}]} for name in ("grpc", "http", "metrics")]
    assert spec["egress"] == [{"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}]
    objects = of_scenario("tls-auth")
    callers = objects["NetworkPolicy", "rel-inferd"]["spec"]["ingress"][0]["from"]
    test = objects["Pod", "rel-inferd-test"]["metadata"]["labels"]
    assert callers[0] == {"namespaceSelector": {"matchLabels": {"team": "search"}}}
    assert callers[1]["podSelector"]["matchLabels"].items() <= test.items()
    assert not SELECTOR.items() <= test.items(), "the test's pod is behind the Service"
    assert objects["NetworkPolicy", "rel-inferd"]["spec"]["ingress"][1] == {
        "ports": [{"port": "http"}],
        "from": callers,
    }
    website, *pods = of_scenario("everything")["NetworkPolicy", "rel-models"]["spec"]["ingress"][1]["from"]
    assert website == {"podSelector": {"matchLabels": {"app": "website"}}}
    names = [each["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for each in pods]
    assert names == ["models-test", "models-batch"]


def test_dns_ports_and_peers_are_configurable() -> None:
    """OpenShift has another port, and peers limit who is DNS."""
    dns, *further = of_scenario("everything")["NetworkPolicy", "rel-models"]["spec"]["egress"]
    assert dns["ports"] == [{"port": port, "protocol": by} for port in (53, 5353) for by in ("UDP", "TCP")]
    assert dns["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}}}]
    assert further == [{"ports": [{"port": 443}, {"port": 4318}]}]


def test_grpc_route_targets_service() -> None:
    """From the configured gateway."""
    spec = of_scenario("everything")["GRPCRoute", "rel-models"]["spec"]
    assert spec["parentRefs"] == [{"name": "internal"}]
    assert spec["hostnames"] == ["inferd.example.com"]
    assert spec["rules"] == [{"backendRefs": [{"name": "rel-models", "port": 8001}]}]


def test_http_route_targets_http_port() -> None:
    """With a time limit that is longer than gateways' own, as loads take minutes."""
    spec = of_scenario("everything")["HTTPRoute", "rel-models"]["spec"]
    assert spec["parentRefs"] == [{"name": "internal"}]
    assert spec["hostnames"] == ["models.example.com"]
    backend = {"name": "rel-models", "port": 8000}
    assert spec["rules"] == [{"backendRefs": [backend], "timeouts": {"request": "900s"}}]


_ROUTE: dict[str, Any] = {"enabled": True, "parentRefs": [{"name": "internal"}]}
_GATEWAY_API = "gateway.networking.k8s.io"


def _backend_tls(*apis: str, route: str = "grpcRoute", **backend_tls: Any) -> dict[str, Any]:
    """Return the policy in a cluster with ``apis``."""
    arguments = [part for api in apis for part in ("--api-versions", f"{_GATEWAY_API}/{api}")]
    values: Values = {
        "tls": CERTIFICATE,
        "grpcRoute": {"backendTls": {"authorities": {"name": "internal-ca"}, **backend_tls}},
    }
    values[route] = {**values.get(route, {}), **_ROUTE}
    return rendered(values, *arguments)["BackendTLSPolicy", "rel-inferd"]


def test_backend_tls_policy_for_gateways() -> None:
    """With the name in the certificate, and its CA."""
    spec = _backend_tls()["spec"]
    assert spec["targetRefs"] == [{"group": "", "kind": "Service", "name": "rel-inferd"}]
    assert spec["validation"] == {
        "hostname": "rel-inferd.ns.svc",
        "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "internal-ca"}],
    }
    own = {"kind": "Secret", "name": "rel-inferd-tls"}
    assert _backend_tls(authorities=own)["spec"]["validation"]["caCertificateRefs"] == [{"group": "", **own}]
    public = _backend_tls(hostname="inferd.example.com", systemAuthorities=True)["spec"]["validation"]
    assert public == {"hostname": "inferd.example.com", "wellKnownCACertificates": "System"}
    assert _backend_tls(route="httpRoute") == _backend_tls()


@pytest.mark.parametrize(
    ("apis", "version"),
    [
        ((), "v1"),
        (("v1/GRPCRoute", "v1/BackendTLSPolicy"), "v1"),
        (("v1/GRPCRoute", "v1alpha3/BackendTLSPolicy"), "v1alpha3"),
        (("v1/GRPCRoute", "v1/BackendTLSPolicy", "v1alpha3/BackendTLSPolicy"), "v1"),
    ],
)
def test_backend_tls_policy_version_follows_cluster(apis: tuple[str, ...], version: str) -> None:
    """The newest without a cluster."""
    assert _backend_tls(*apis)["apiVersion"] == f"{_GATEWAY_API}/{version}"


def test_rejects_gateway_without_backend_tls_policy() -> None:
    """Unless the gateway has another configuration for TLS."""
    with pytest.raises(
        RefusedError, match="grpcRoute: the server has TLS, which gateways use according to a BackendTLSPol"
    ):
        _backend_tls("v1/GRPCRoute")
    mesh = {**_ROUTE, "backendTls": {"create": False}}
    kinds = {kind for kind, _ in rendered({"tls": CERTIFICATE, "grpcRoute": mesh})}
    assert "GRPCRoute" in kinds
    assert "BackendTLSPolicy" not in kinds
    assert "BackendTLSPolicy" not in {kind for kind, _ in rendered({"grpcRoute": _ROUTE})}


_INGRESS: dict[str, Any] = {"enabled": True, "hosts": ["inferd.example.com"], "tlsSecret": "inferd-example-com"}
_NGINX = "nginx.ingress.kubernetes.io"


def test_ingress_targets_grpc_port() -> None:
    """For all hosts, with TLS."""
    ingress = of_scenario("tls-auth")["Ingress", "rel-inferd"]
    assert ingress["spec"]["tls"] == [{"secretName": "inferd-example-com", "hosts": ["inferd.example.com"]}]
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"] == {"service": {"name": "rel-inferd", "port": {"name": "grpc"}}}


def test_http_ingress_targets_http_port() -> None:
    """With TLS if it has a certificate."""
    spec = of_scenario("tls-auth")["Ingress", "rel-inferd-http"]["spec"]
    assert spec["tls"] == [{"secretName": "models-example-com", "hosts": ["models.example.com"]}]
    (path,) = spec["rules"][0]["http"]["paths"]
    assert path["backend"] == {"service": {"name": "rel-inferd", "port": {"name": "http"}}}
    assert "tls" not in of_scenario("everything")["Ingress", "rel-models-http"]["spec"]


@pytest.mark.parametrize(("tls", "protocol"), [({"enabled": False}, "HTTP"), (CERTIFICATE, "HTTPS")])
def test_nginx_leaves_bodies_to_the_server(tls: Values, protocol: str) -> None:
    """Its defaults limit a body to 1 MB, write each to a disk first, and wait for a minute."""
    values: Values = {"tls": tls, "http": {"timeoutSeconds": 120}, "httpIngress": {"enabled": True, "hosts": ["x"]}}
    assert rendered(values)["Ingress", "rel-inferd-http"]["metadata"]["annotations"] == {
        f"{_NGINX}/backend-protocol": protocol,
        f"{_NGINX}/proxy-body-size": "0",
        f"{_NGINX}/proxy-request-buffering": "off",
        f"{_NGINX}/proxy-read-timeout": "120",
        f"{_NGINX}/proxy-send-timeout": "120",
    }


def _annotations(ingress: Values, **values: Any) -> dict[str, str]:
    return rendered({"ingress": {**_INGRESS, **ingress}, **values})["Ingress", "rel-inferd"]["metadata"]["annotations"]


@pytest.mark.parametrize("name", ["nginx", "nginx-internal"])
def test_nginx_uses_grpc_without_own_limits(name: str) -> None:
    """Its defaults limit all messages of a stream to 1 MB, and end streams that are silent for a minute."""
    assert _annotations({"className": name}) == {
        f"{_NGINX}/backend-protocol": "GRPC",
        f"{_NGINX}/proxy-body-size": "0",
        # The maximum duration of a call: the age of a connection, a tenth more, and the grace period.
        f"{_NGINX}/proxy-read-timeout": "630",
        f"{_NGINX}/proxy-send-timeout": "630",
    }
    assert _annotations({"className": name}, tls=CERTIFICATE)[f"{_NGINX}/backend-protocol"] == "GRPCS"


@pytest.mark.parametrize(
    ("connections", "seconds"),
    [
        ({"max_age_s": 0}, 86400),
        ({"max_age_s": 10.5, "max_age_grace_s": 0.25}, 12),
        ({"max_age_s": 1_000_000}, 1100300),
    ],
)
def test_nginx_timeout_is_maximum_call_duration(connections: Values, seconds: int) -> None:
    """A day if the server does not limit it."""
    annotations = _annotations({}, config={"server": {"connections": connections}})
    assert annotations[f"{_NGINX}/proxy-read-timeout"] == str(seconds)


def _notes(values: Values) -> str:
    """Return helm's notes of an installation."""
    return helm("helm4", "install", "rel", CHART, "--namespace", "ns", "--dry-run=client", values=values)


def test_notes_show_metrics_address_and_missing_gateway_certificate() -> None:
    """Nothing in the cluster reports these."""
    metrics = "://rel-inferd-metrics.ns.svc:9000/metrics\n"
    plain = _notes({"service": {"metricsPort": 9000}})
    assert f"http{metrics}" in plain
    assert "spec.tls.backend" not in plain
    page = "http://rel-inferd.ns.svc:8000   over HTTP, for example /v2/models/NAME/infer; the status page is at /\n"
    assert page in plain
    assert "over HTTP" not in _notes({"http": {"enabled": False}})
    assert "status page" not in _notes({"config": {"server": {"http": {"status_page": False}}}})
    route = {**_ROUTE, "backendTls": {"authorities": {"name": "internal-ca"}}}
    tls = {**CERTIFICATE, "clientCertificates": "required"}
    mutual = _notes({"service": {"metricsPort": 9000}, "tls": tls, "grpcRoute": route})
    assert f"https{metrics}" in mutual
    assert "the gateway is its client and needs one (spec.tls.backend" in mutual


def test_ingress_annotations_take_precedence() -> None:
    """Over the chart's and the common ones; other controllers get none of the chart's."""
    size, timeout = f"{_NGINX}/proxy-body-size", f"{_NGINX}/proxy-read-timeout"
    found = _annotations({"annotations": {size: "8m"}}, commonAnnotations={size: "4m", timeout: "5"})
    assert (found[size], found[timeout]) == ("8m", "5")
    other = of_scenario("everything")["Ingress", "rel-models"]["metadata"]["annotations"]
    assert other == {"haproxy.org/server-proto": "h2", "example.com/owner": "search"}

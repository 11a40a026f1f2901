"""Who gets in, and by which way."""

import yaml

from tests.chart.rendering import container, of_scenario, pod, rendered, server_settings

SELECTOR = {"app.kubernetes.io/name": "inferd", "app.kubernetes.io/instance": "rel"}
CERTIFICATE = {"enabled": True, "existingSecret": "certificate"}


def test_secrets_are_mounted_as_whole_volumes_for_the_group_alone() -> None:
    """A file of a subPath would stay as it is when its Secret changes."""
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


def test_policy_is_a_config_map_of_its_own() -> None:
    """So that it is taken up without new pods."""
    policy = of_scenario("tls-auth")["ConfigMap", "rel-inferd-policy"]
    assert yaml.safe_load(policy["data"]["policy.yaml"])["rules"][0]["principals"] == ["token:alice"]


def test_keys_of_an_issuer_come_from_a_config_map() -> None:
    """Beside the issuer that config names."""
    objects = of_scenario("everything")
    jwt = server_settings(objects, "rel-models")["security"]["jwt"]
    assert jwt == {
        "issuer": "https://issuer.example",
        "audience": ["inferd"],
        "jwks_file": "/etc/inferd/jwks/jwks.json",
    }
    (volume,) = (each for each in pod(objects)["volumes"] if each["name"] == "jwks")
    assert volume["configMap"] == {"name": "issuer-keys", "items": [{"key": "jwks.json", "path": "jwks.json"}]}


def test_certificate_is_for_all_names_of_the_services() -> None:
    """With a key that gRPC's clients can check."""
    spec = of_scenario("tls-auth")["Certificate", "rel-inferd"]["spec"]
    assert {"rel-inferd.ns.svc", "rel-inferd-headless.ns.svc", "inferd.example.com"} <= set(spec["dnsNames"])
    assert (spec["privateKey"]["algorithm"], spec["privateKey"]["size"]) == ("ECDSA", 256)
    assert spec["issuerRef"] == {"name": "internal", "kind": "Issuer", "group": "cert-manager.io"}
    volumes = {volume["name"]: volume for volume in pod(of_scenario("tls-auth"))["volumes"]}
    assert volumes["tls"]["secret"]["secretName"] == spec["secretName"]


def test_service_account_is_without_a_token() -> None:
    """The server never calls Kubernetes; an account that exists can be named instead."""
    account = rendered()["ServiceAccount", "rel-inferd"]
    assert account["automountServiceAccountToken"] is False
    other = rendered({"serviceAccount": {"create": False, "name": "mine"}})
    assert pod(other)["serviceAccountName"] == "mine"
    assert not any(kind == "ServiceAccount" for kind, _ in other)


def test_services_lead_to_the_named_ports() -> None:
    """Both of them, and each says what is spoken."""
    objects = rendered({"service": {"type": "LoadBalancer", "grpcPort": 443, "annotations": {"a": "b"}}})
    service = objects["Service", "rel-inferd"]
    assert service["spec"]["type"] == "LoadBalancer"
    assert service["metadata"]["annotations"] == {"a": "b"}
    headless = objects["Service", "rel-inferd-headless"]["spec"]
    assert headless["clusterIP"] == "None"
    for spec in (service["spec"], headless):
        assert spec["selector"] == SELECTOR
        grpc, http = spec["ports"]
        assert (grpc["port"], grpc["targetPort"], grpc["appProtocol"]) == (443, "grpc", "kubernetes.io/h2c")
        assert (http["port"], http["targetPort"]) == (8002, "http")
    assert {
        port["appProtocol"] for port in rendered({"tls": CERTIFICATE})["Service", "rel-inferd"]["spec"]["ports"]
    } == {"https"}


def test_disruption_budget_lets_nodes_be_emptied() -> None:
    """One replica at a time, and replicas that are not ready at any time."""
    spec = rendered()["PodDisruptionBudget", "rel-inferd"]["spec"]
    assert spec["maxUnavailable"] == 1
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert spec["selector"]["matchLabels"] == SELECTOR


def test_network_policy_lets_in_two_ports_and_out_to_dns() -> None:
    """Where callers are listed, the pod of the test is one of them."""
    spec = rendered()["NetworkPolicy", "rel-inferd"]["spec"]
    assert spec["ingress"] == [{"ports": [{"port": "grpc"}]}, {"ports": [{"port": "http"}]}]
    assert [port["port"] for rule in spec["egress"] for port in rule["ports"]] == [53, 53]
    objects = of_scenario("tls-auth")
    callers = objects["NetworkPolicy", "rel-inferd"]["spec"]["ingress"][0]["from"]
    test = objects["Pod", "rel-inferd-test"]["metadata"]["labels"]
    assert callers[0] == {"namespaceSelector": {"matchLabels": {"team": "search"}}}
    assert callers[1]["podSelector"]["matchLabels"].items() <= test.items()
    assert not SELECTOR.items() <= test.items(), "the test's pod is behind the Service"


def test_grpc_route_leads_to_the_service() -> None:
    """From the gateway that is named."""
    spec = of_scenario("everything")["GRPCRoute", "rel-models"]["spec"]
    assert spec["parentRefs"] == [{"name": "internal"}]
    assert spec["hostnames"] == ["inferd.example.com"]
    assert spec["rules"] == [{"backendRefs": [{"name": "rel-models", "port": 8001}]}]


def test_ingress_speaks_grpc_to_the_server() -> None:
    """With TLS where the server has it."""
    ingress = of_scenario("tls-auth")["Ingress", "rel-inferd"]
    assert ingress["metadata"]["annotations"] == {"nginx.ingress.kubernetes.io/backend-protocol": "GRPCS"}
    assert ingress["spec"]["tls"] == [{"secretName": "inferd-example-com", "hosts": ["inferd.example.com"]}]
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"] == {"service": {"name": "rel-inferd", "port": {"name": "grpc"}}}
    other = of_scenario("everything")["Ingress", "rel-models"]
    assert other["metadata"]["annotations"] == {"haproxy.org/server-proto": "h2"}

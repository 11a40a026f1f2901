"""Invalid values, and their errors."""

import pytest

from tests.chart.rendering import HELMS, RefusedError, Values, rendered

CERTIFICATE = {"enabled": True, "existingSecret": "certificate"}
TOKENS = {"tokens": {"existingSecret": "tokens"}}
BATCH = {"enabled": True, "inputs": ["/data/rows"], "output": "/data/answers"}
OPEN = {"networkPolicy": {"restrictEgress": False}}
DATA = {"persistentVolumeClaim": {"claimName": "data"}}
PROMETHEUS = {"serverAddress": "http://prometheus:9090"}

#: Rejected by the schema: values, and a part of the error.
WRONG: dict[str, tuple[Values, str]] = {
    "a misspelt name": ({"replica": 3}, "replica"),
    "a misspelt name further down": ({"tls": {"certManger": {"enabled": True}}}, "certManger"),
    "a misspelt setting of the server": ({"config": {"queue": {"max_row": 5}}}, "max_row"),
    "a setting of the server that is out of bounds": (
        {"config": {"batching": {"max_batch_size": 0}}},
        "max_batch_size",
    ),
    "text for a number": ({"replicas": "three"}, "replicas"),
    "a number for text": ({"image": {"tag": 1.5}}, "tag"),
    "fewer than none": ({"replicas": -1}, "replicas"),
    "an unknown kind": ({"kind": "DaemonSet"}, "kind"),
    "two autoscalers": ({"autoscaling": {"mode": ["hpa", "keda"]}}, "mode"),
    "an unknown autoscaler": ({"autoscaling": {"mode": "vpa"}}, "mode"),
    "no replica at least": ({"autoscaling": {"minReplicas": 0}}, "minReplicas"),
    "more than all of the capacity": ({"autoscaling": {"target": 1.5}}, "target"),
    "an invalid port": ({"ports": {"grpc": 70000}}, "grpc"),
    "a digest that is none": ({"image": {"digest": "latest"}}, "digest"),
    "a MIG profile that is none": ({"gpu": {"migProfile": "half"}}, "migProfile"),
    "a name that no object may have": ({"fullnameOverride": "Digits"}, "fullnameOverride"),
    "a name that no label may have": ({"nameOverride": "-digits"}, "nameOverride"),
    "an unknown IP family": ({"service": {"ipFamilies": ["IPv5"]}}, "ipFamilies"),
    "an address for a range": ({"service": {"loadBalancerSourceRanges": ["10.0.0.1"]}}, "loadBalancerSourceRanges"),
    "a port that DNS cannot have": ({"networkPolicy": {"dns": {"ports": [0]}}}, "ports"),
    "a host without an address": ({"hostAliases": [{"hostnames": ["a"]}]}, "hostAliases"),
    "a variable without a name": ({"extraEnv": [{"value": "x"}]}, "extraEnv"),
    "a mount without a place": ({"extraVolumeMounts": [{"name": "x"}]}, "extraVolumeMounts"),
    "no index at least": ({"batch": {"indexes": 0}}, "indexes"),
    "a text for a number of indexes": ({"batch": {"maxFailedIndexes": "all"}}, "maxFailedIndexes"),
    "a section that was left empty": ({"monitoring": None}, "monitoring"),
    "a section further down that was left empty": ({"models": {"fetch": None}}, "fetch"),
    "labels that were left empty": ({"podLabels": None}, "podLabels"),
    "a list that was left empty": ({"tolerations": None}, "tolerations"),
    "a switch that was left empty": ({"tls": {"enabled": None}}, "enabled"),
    "a number that was left empty": ({"autoscaling": {"minReplicas": None}}, "minReplicas"),
    "a choice that was left empty": ({"kind": None}, "kind"),
    "a name that was left empty": ({"gpu": {"resource": None}}, "resource"),
    "scrapes that are too rare for the rules": ({"monitoring": {"interval": "60s"}}, "interval"),
}

#: Rejected by the templates: contradictory values, and the beginning of the error.
CONTRARY: dict[str, tuple[Values, str]] = {
    "a port in config": (
        {"config": {"server": {"grpc_port": 9}}},
        "config.server.grpc_port: the chart sets it, use the value ports.grpc",
    ),
    "TLS in config": (
        {"config": {"security": {"tls": {"cert_file": "/x"}}}},
        "config.security.tls: the chart sets it, use the value tls",
    ),
    "models in config": ({"config": {"models": ["/models"]}}, "config.models: the chart sets it, use the value models"),
    "no HTTP in config": (
        {"config": {"server": {"http_port": None}}},
        "config.server.http_port: the chart sets it, use the value ports.http or http.enabled instead",
    ),
    "HTTP that only its own pod reaches": (
        {"config": {"server": {"http": {"host": "localhost"}}}},
        "config.server.http.host: expected an address that the Services and the kubelet's probes can reach",
    ),
    "a server that only its own pod reaches": (
        {"config": {"server": {"host": "127.0.0.1"}}},
        "config.server.host: expected an address that the Services and the kubelet's probes can reach",
    ),
    "traces to nowhere, by the environment": (
        {"extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://x"}]},
        "extraEnv: the network policy forbids",
    ),
    "one port for both": ({"ports": {"metrics": 8001}}, "ports.metrics: expected another port"),
    "the port of metrics for HTTP": (
        {"ports": {"http": 8002}},
        "ports.http: expected another port than ports.grpc and",
    ),
    "a flag of the port": (
        {"extraArgs": ["--http-port=none"]},
        "extraArgs: the chart itself sets --http-port=none, use the value ports.http or http.enabled instead",
    ),
    "a route to HTTP that is off": (
        {"http": {"enabled": False}, "httpRoute": {"enabled": True, "parentRefs": [{"name": "internal"}]}},
        "httpRoute: expected http.enabled beside it",
    ),
    "an Ingress to HTTP that is off": (
        {"http": {"enabled": False}, "httpIngress": {"enabled": True, "hosts": ["x"]}},
        "httpIngress: expected http.enabled beside it",
    ),
    "two routes for all names": (
        {name: {"enabled": True, "parentRefs": [{"name": "internal"}]} for name in ("grpcRoute", "httpRoute")},
        "httpRoute.hostnames: expected other names than those of grpcRoute.hostnames",
    ),
    "two routes for a name": (
        {
            name: {"enabled": True, "parentRefs": [{"name": "internal"}], "hostnames": ["x", name.lower()]}
            for name in ("grpcRoute", "httpRoute")
        },
        "httpRoute.hostnames: expected other names than those of grpcRoute.hostnames",
    ),
    "two Ingresses for a name": (
        {name: {"enabled": True, "hosts": ["x"], "tlsSecret": "x"} for name in ("ingress", "httpIngress")},
        "httpIngress.hosts: expected other names than those of ingress.hosts, got x in both",
    ),
    "a port of HTTP in a sidecar": (
        {"extraContainers": [{"name": "proxy", "image": "x", "ports": [{"containerPort": 8000}]}]},
        "extraContainers: ports of proxy: the chart itself sets 8000",
    ),
    "volumes of a Deployment": ({"volumeClaimTemplates": [{}]}, "volumeClaimTemplates: only a StatefulSet has them"),
    "a StatefulSet without its Service": ({"kind": "StatefulSet", "service": {"headless": False}}, "service.headless:"),
    "a command without its image": ({"models": {"fetch": {"command": ["sync"]}}}, "models.fetch.image: expected"),
    "parts of no GPU": ({"gpu": {"migProfile": "1g.10gb"}}, "gpu.count: expected"),
    "TLS without a certificate": ({"tls": {"enabled": True}}, "tls: expected a certificate"),
    "a certificate without TLS": ({"tls": {"existingSecret": "x"}}, "tls.enabled: expected true"),
    "two certificates": ({"tls": {**CERTIFICATE, "certManager": {"enabled": True}}}, "tls: expected either"),
    "a certificate of nobody": (
        {"tls": {"enabled": True, "certManager": {"enabled": True}}},
        "tls.certManager.issuerRef.name:",
    ),
    "rules for nobody": ({"auth": {"policy": {"rules": []}}}, "auth.policy: expected authentication"),
    "keys without an issuer": (
        {"auth": {"jwks": {"existingConfigMap": "keys"}}},
        "auth.jwks: expected config.security.jwt",
    ),
    "SPIFFE without client certificates": (
        {"config": {"security": {"spiffe": {"trust_domains": ["prod"]}}}},
        "config.security.spiffe:",
    ),
    "gRPC probes with TLS": ({"tls": CERTIFICATE, "probes": {"type": "grpc"}}, "probes.type: the kubelet"),
    "gRPC probes without a token": (
        {"auth": TOKENS, "config": {"security": {"open_health": False}}, "probes": {"type": "grpc"}},
        "probes.type: the kubelet",
    ),
    "fetching from nowhere": ({"models": {"fetch": {"image": "aws-cli"}}}, "models.fetch: the network policy forbids"),
    "traces to nowhere": (
        {"config": {"tracing": {"endpoint": "http://x"}}},
        "config.tracing.endpoint: the network policy forbids",
    ),
    "TLS behind a gateway, of nobody": (
        {"tls": CERTIFICATE, "grpcRoute": {"enabled": True, "parentRefs": [{"name": "internal"}]}},
        "grpcRoute.backendTls.authorities.name: expected the ConfigMap or Secret with ca.crt",
    ),
    "client certificates that nginx does not show": (
        {
            "tls": {**CERTIFICATE, "clientCertificates": "required"},
            "ingress": {"enabled": True, "hosts": ["x"], "tlsSecret": "x"},
        },
        "ingress.annotations: tls.clientCertificates is required, and ingress-nginx presents none",
    ),
    "client certificates that nginx does not show over HTTP": (
        {
            "tls": {**CERTIFICATE, "clientCertificates": "required"},
            "httpIngress": {"enabled": True, "hosts": ["x"]},
        },
        "httpIngress.annotations: tls.clientCertificates is required, and ingress-nginx presents none by itself",
    ),
    "TLS behind a gateway of HTTP, of nobody": (
        {"tls": CERTIFICATE, "httpRoute": {"enabled": True, "parentRefs": [{"name": "internal"}]}},
        "grpcRoute.backendTls.authorities.name: expected the ConfigMap or Secret with ca.crt",
    ),
    "a route of HTTP of no gateway": ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs: expected"),
    "an Ingress of HTTP for no host": ({"httpIngress": {"enabled": True}}, "httpIngress.hosts: expected"),
    "ranges of no load balancer": (
        {"service": {"loadBalancerSourceRanges": ["10.0.0.0/8"]}},
        "service.loadBalancerSourceRanges: expected service.type LoadBalancer beside it, got ClusterIP",
    ),
    "a load balancer of no load balancer": (
        {"service": {"type": "NodePort", "loadBalancerClass": "x/y"}},
        "service.loadBalancerClass: expected service.type LoadBalancer beside it, got NodePort",
    ),
    "traffic from outside where there is none": (
        {"service": {"externalTrafficPolicy": "Local"}},
        "service.externalTrafficPolicy: expected service.type LoadBalancer or NodePort beside it",
    ),
    "IPv6 to where only IPv4 is listened for": (
        {"service": {"ipFamilies": ["IPv6"]}, "config": {"server": {"host": "0.0.0.0"}}},
        "config.server.host: expected [::]",
    ),
    "GPUs twice": (
        {"gpu": {"count": 1}, "resources": {"limits": {"nvidia.com/gpu": 2}}},
        "resources.limits: the chart itself sets nvidia.com/gpu",
    ),
    "a route of no gateway": ({"grpcRoute": {"enabled": True}}, "grpcRoute.parentRefs: expected"),
    "an Ingress for no host": ({"ingress": {"enabled": True}}, "ingress.hosts: expected"),
    "an Ingress without TLS": ({"ingress": {"enabled": True, "hosts": ["x"]}}, "ingress.tlsSecret: expected"),
    "more at least than at most": (
        {"autoscaling": {"minReplicas": 11}},
        "autoscaling.maxReplicas: expected minReplicas (11)",
    ),
    "KEDA without Prometheus": ({"autoscaling": {"mode": "keda"}}, "autoscaling.keda.serverAddress: expected"),
    "a part of no CPU": (
        {"autoscaling": {"mode": "hpa"}, "resources": {"requests": {"cpu": None}}},
        "autoscaling.cpuPercent: refers to",
    ),
    "a part of no GPU": ({"autoscaling": {"gpuPercent": 80}}, "autoscaling.gpuPercent: there are no GPUs"),
    "an offline job without rows": ({"batch": {"enabled": True, "output": "s3://b/x"}}, "batch.inputs: expected"),
    "an offline job without answers": ({"batch": {"enabled": True, "inputs": ["/data"]}}, "batch.output: expected"),
    "answers that the pod takes with it": (
        {"batch": BATCH},
        "batch.output: expected an address such as s3://bucket/answers, or a path in a volume that can be written",
    ),
    "neither server nor Job": ({"batch": {"only": True}}, "batch.enabled: expected true beside batch.only"),
    "more pods than indexes": (
        {"batch": {**BATCH, **DATA, "indexes": 2, "parallelism": 3}},
        "batch.parallelism: expected batch.indexes (2) or fewer, got 3",
    ),
    "more failures than indexes": (
        {"batch": {**BATCH, **DATA, "maxFailedIndexes": 2}},
        "batch.maxFailedIndexes: expected batch.indexes (1) or fewer, got 2",
    ),
    "a directory of no claim": (
        {"batch": {**BATCH, "output": "s3://b/x", "persistentVolumeClaim": {"subPath": "x"}}, **OPEN},
        "batch.persistentVolumeClaim.claimName: expected the claim",
    ),
    "an index twice": (
        {"batch": {**BATCH, **DATA, "extraArgs": ["--index=1"]}},
        "batch.extraArgs: the chart itself sets --index=1, use the value batch.indexes instead",
    ),
    "tries that begin from nothing": (
        {"batch": {**BATCH, **DATA, "extraArgs": ["--overwrite"]}},
        "batch.extraArgs: --overwrite would make each try begin from nothing",
    ),
    "a mount twice": (
        {"batch": {**BATCH, **DATA, "extraVolumeMounts": [{"name": "x", "mountPath": "/data"}]}},
        "extraVolumeMounts and batch.extraVolumeMounts: the chart itself sets /data",
    ),
    "rows that cannot be reached": (
        {"batch": {**BATCH, **DATA, "inputs": ["s3://bucket/rows"]}},
        "batch.inputs: the network policy forbids",
    ),
    "a server that cannot be reached": (
        {"batch": {**BATCH, **DATA, "server": "dns:///x:8001"}},
        "batch.server: the network policy forbids",
    ),
    "TLS of no server": (
        {"batch": {**BATCH, **DATA, "only": True}, "tls": CERTIFICATE},
        "tls.enabled: it is for a server, and batch.only leaves the server out",
    ),
    "a way to no server": (
        {
            "batch": {**BATCH, **DATA, "only": True},
            "ingress": {"enabled": True, "hosts": ["x"], "tlsSecret": "x"},
        },
        "ingress: it is for a server, and batch.only leaves the server out",
    ),
    "two monitors": (
        {"monitoring": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}},
        "monitoring: expected either",
    ),
    "scrapes without a certificate": (
        {"tls": {**CERTIFICATE, "clientCertificates": "required"}, "monitoring": {"podMonitor": {"enabled": True}}},
        "monitoring.tlsConfig: expected",
    ),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("binary", HELMS)
def test_schema_rejects_invalid_values(binary: str, case: str) -> None:
    """The error names the value."""
    values, name = WRONG[case]
    with pytest.raises(RefusedError, match=name) as refused:
        rendered(values, binary=binary)
    assert "values don't meet the specifications of the schema" in str(refused.value)


@pytest.mark.parametrize("case", CONTRARY)
@pytest.mark.parametrize("binary", HELMS)
def test_rejects_contradictory_values(binary: str, case: str) -> None:
    """The error has the values, and what to do."""
    values, text = CONTRARY[case]
    with pytest.raises(RefusedError) as refused:
        rendered(values, binary=binary)
    assert f"{text}" in str(refused.value)
    assert "execution error" in str(refused.value)


@pytest.mark.parametrize(
    ("feature", "values", "least"),
    [
        ("models.image", {"models": {"image": {"reference": "x"}}}, "1.31"),
        ("batch.maxFailedIndexes", {"batch": {**BATCH, **DATA, "maxFailedIndexes": 1}}, "1.29"),
        ("drain.preStopSeconds", {"drain": {"preStopSeconds": 1}}, "1.30"),
        ("service.trafficDistribution", {"service": {"trafficDistribution": "PreferClose"}}, "1.30"),
    ],
)
def test_rejects_features_of_newer_kubernetes(feature: str, values: Values, least: str) -> None:
    """One version too early; the first version that has it is accepted."""
    rendered(values, version=least)
    before = f"1.{int(least.removeprefix('1.')) - 1}"
    with pytest.raises(RefusedError, match=f"{feature}: needs Kubernetes {least} or newer"):
        rendered(values, version=before)


def test_schema_accepts_global_values() -> None:
    """Helm passes them to each subchart."""
    assert rendered({"global": {"imageRegistry": "registry.example"}})

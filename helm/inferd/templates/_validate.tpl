{{/* Checks that the schema cannot express: contradictory values. Each error says what to do. */}}

{{- define "inferd.validate" -}}
{{- include "inferd.validateConfig" . -}}
{{- include "inferd.validateNames" . -}}
{{- include "inferd.validateModels" . -}}
{{- include "inferd.validateBatch" . -}}
{{- include "inferd.validateSecurity" . -}}
{{- include "inferd.validateNetwork" . -}}
{{- include "inferd.validateService" . -}}
{{- include "inferd.validateRoutes" . -}}
{{- include "inferd.validateScaling" . -}}
{{- include "inferd.validateCluster" . -}}
{{- end -}}

{{/* Settings of the server that the chart sets, and the values that set them. */}}
{{- define "inferd.insteadOfSettings" -}}
models: models
repository.mode: models.control.mode
repository.poll_interval_s: models.control.pollIntervalSeconds
repository.load: models.control.load
repository.remember: models.control.remember
repository.readiness: models.readiness
repository.on_demand: models.onDemand
repository.memory_budget_bytes: models.memoryBudget
generation.cache_bytes: models.generationCache
repository.device_memory_budget_bytes: models.deviceMemoryBudget
remote.cache: models.cache
remote.cache_bytes: models.cache.size
repository.exit_on_error: models.exitOnError
server.grpc_port: ports.grpc
server.http_port: ports.http or http.enabled
server.metrics_port: ports.metrics
server.drain_delay_s: drain.delaySeconds
server.drain_grace_s: drain.graceSeconds
security.tls: tls
security.tokens_file: auth.tokens
security.policy_file: auth.policy
security.jwt.jwks_file: auth.jwks
{{- end -}}

{{- define "inferd.validateConfig" -}}
{{- range $setting, $value := include "inferd.insteadOfSettings" . | fromYaml -}}
{{- $isOff := and (eq $setting "server.http_port") (hasKey (dig "server" dict $.Values.config) "http_port") -}}
{{- if or $isOff (include "inferd.setting" (dict "root" $ "path" $setting)) -}}
{{- fail (printf "config.%s: the chart sets it, use the value %s instead" $setting $value) -}}
{{- end -}}
{{- end -}}
{{- range $name := list "host" "http.host" "metrics_host" -}}
{{- $host := include "inferd.setting" (dict "root" $ "path" (printf "server.%s" $name)) | trimAll "\"" -}}
{{- if regexMatch "^(unix|127[.]|localhost$|\\[?::1\\]?$)" $host -}}
{{- fail (printf "config.server.%s: expected an address that the Services and the kubelet's probes can reach, such as 0.0.0.0, got %s" $name $host) -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.ports.grpc .Values.ports.metrics }}{{ fail "ports.metrics: expected another port than ports.grpc" }}{{ end -}}
{{- if and .Values.http.enabled (has .Values.ports.http (list .Values.ports.grpc .Values.ports.metrics)) -}}
{{- fail "ports.http: expected another port than ports.grpc and ports.metrics" -}}
{{- end -}}
{{- if and .Values.volumeClaimTemplates (ne .Values.kind "StatefulSet") -}}
{{- fail "volumeClaimTemplates: only a StatefulSet has them, set kind to StatefulSet or use extraVolumes" -}}
{{- end -}}
{{- if and (eq .Values.kind "StatefulSet") (not .Values.service.headless) -}}
{{- fail "service.headless: a StatefulSet needs the headless Service, set it to true" -}}
{{- end -}}
{{- $fetch := .Values.models.fetch -}}
{{- if and (or $fetch.command $fetch.args) (not $fetch.image) -}}
{{- fail "models.fetch.image: expected the image that has models.fetch.command, got none" -}}
{{- end -}}
{{- if and .Values.gpu.migProfile (not .Values.gpu.count) -}}
{{- fail "gpu.count: expected the number of GPU parts of gpu.migProfile, got 0" -}}
{{- end -}}
{{- if and .Values.gpu.count (hasKey (dig "limits" dict (.Values.resources | default dict) | default dict) (include "inferd.gpuResource" .)) -}}
{{- fail (printf "resources.limits: the chart itself sets %s, use the value gpu.count instead" (include "inferd.gpuResource" .)) -}}
{{- end -}}
{{- end -}}

{{- define "inferd.validateSecurity" -}}
{{- $tls := .Values.tls -}}
{{- $manager := $tls.certManager -}}
{{- if $tls.enabled -}}
{{- if and $tls.existingSecret $manager.enabled -}}
{{- fail "tls: expected either tls.existingSecret or tls.certManager.enabled, got both" -}}
{{- end -}}
{{- if not (or $tls.existingSecret $manager.enabled) -}}
{{- fail "tls: expected a certificate, set tls.existingSecret or tls.certManager.enabled" -}}
{{- end -}}
{{- if and $manager.enabled (not $manager.issuerRef.name) -}}
{{- fail "tls.certManager.issuerRef.name: expected the name of an issuer, got none" -}}
{{- end -}}
{{- else if or $tls.existingSecret $manager.enabled (eq $tls.clientCertificates "required") -}}
{{- fail "tls.enabled: expected true, because another value of tls sets or requests a certificate" -}}
{{- end -}}
{{- if and .Values.auth.policy (not (include "inferd.authenticates" .)) -}}
{{- fail "auth.policy: expected authentication, without which its rules match no caller; set auth.tokens, auth.jwks or config.security.spiffe" -}}
{{- end -}}
{{- $issuer := include "inferd.setting" (dict "root" . "path" "security.jwt.issuer") -}}
{{- $audience := include "inferd.setting" (dict "root" . "path" "security.jwt.audience") -}}
{{- if and .Values.auth.jwks.existingConfigMap (not (and $issuer $audience)) -}}
{{- fail "auth.jwks: expected config.security.jwt.issuer and config.security.jwt.audience beside it" -}}
{{- end -}}
{{- $spiffe := include "inferd.setting" (dict "root" . "path" "security.spiffe.trust_domains") -}}
{{- if and $spiffe (ne $tls.clientCertificates "required") -}}
{{- fail "config.security.spiffe: expected tls.clientCertificates required beside it" -}}
{{- end -}}
{{- if and (eq .Values.probes.type "grpc") (include "inferd.guardedHealth" .) -}}
{{- fail "probes.type: the kubelet supports neither TLS nor credentials in gRPC probes, use http or auto" -}}
{{- end -}}
{{- end -}}

{{- define "inferd.validateNetwork" -}}
{{- $policy := .Values.networkPolicy -}}
{{- if and $policy.enabled $policy.restrictEgress (not $policy.extraEgress) -}}
{{- $keys := include "inferd.setting" (dict "root" . "path" "security.jwt.jwks_url") -}}
{{- $needs := dict "models.fetch" .Values.models.fetch.image "models.remote" .Values.models.remote.addresses "config.security.jwt.jwks_url" $keys -}}
{{- with include "inferd.traces" . }}{{ $_ := set $needs . "traces" }}{{ end -}}
{{- with .Values.batch -}}
{{- if .enabled -}}
{{- $_ := set $needs "batch.inputs" (contains "://" (join " " .inputs)) -}}
{{- $_ = set $needs "batch.output" (contains "://" .output) -}}
{{- $_ = set $needs "batch.server" .server -}}
{{- end -}}
{{- end -}}
{{- range $value, $needed := $needs -}}
{{- if $needed -}}
{{- fail (printf "%s: the network policy forbids connections from the pods, add a rule to networkPolicy.extraEgress or set networkPolicy.restrictEgress to false" $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "inferd.validateService" -}}
{{- $service := .Values.service -}}
{{- $types := dict "loadBalancerClass" (list "LoadBalancer") "loadBalancerSourceRanges" (list "LoadBalancer")
  "externalTrafficPolicy" (list "LoadBalancer" "NodePort") -}}
{{- range $name, $ofTypes := $types -}}
{{- if and (get $service $name) (not (has $service.type $ofTypes)) -}}
{{- fail (printf "service.%s: expected service.type %s beside it, got %s" $name (join " or " $ofTypes) $service.type) -}}
{{- end -}}
{{- end -}}
{{- if and (include "inferd.ipv6" .) (eq (include "inferd.host" .) "0.0.0.0") -}}
{{- fail "config.server.host: expected [::] beside IPv6 in service.ipFamilies or service.ipFamilyPolicy, got 0.0.0.0; or leave it out" -}}
{{- end -}}
{{- end -}}

{{- define "inferd.validateRoutes" -}}
{{- $tls := .Values.grpcRoute.backendTls -}}
{{- range $name := list "grpcRoute" "httpRoute" -}}
{{- $route := get $.Values $name -}}
{{- if and $route.enabled (not $route.parentRefs) -}}
{{- fail (printf "%s.parentRefs: expected the gateway that the route belongs to, got none" $name) -}}
{{- end -}}
{{- end -}}
{{- if include "inferd.backendTls" . -}}
{{- if not (or $tls.authorities.name $tls.systemAuthorities) -}}
{{- fail "grpcRoute.backendTls.authorities.name: expected the ConfigMap or Secret with ca.crt with which the gateway verifies the server's certificate, got none; or set grpcRoute.backendTls.systemAuthorities, or grpcRoute.backendTls.create to false if the gateway has another configuration for TLS" -}}
{{- end -}}
{{- if not (include "inferd.backendTlsVersion" .) -}}
{{- fail "grpcRoute: the server has TLS, which gateways use according to a BackendTLSPolicy, and this cluster's Gateway API has none; install Gateway API 1.4 or newer, or set grpcRoute.backendTls.create to false if the gateway has another configuration for TLS" -}}
{{- end -}}
{{- end -}}
{{- include "inferd.validateSharedHosts" . -}}
{{- include "inferd.validateIngress" . -}}
{{- end -}}

{{/* HTTP that is off, and hosts of which gateways and controllers would serve only one of the two protocols. */}}
{{- define "inferd.validateSharedHosts" -}}
{{- $values := .Values -}}
{{- range $name := list "httpRoute" "httpIngress" -}}
{{- if and (get $values $name).enabled (not $values.http.enabled) -}}
{{- fail (printf "%s: expected http.enabled beside it" $name) -}}
{{- end -}}
{{- end -}}
{{- $grpc := $values.grpcRoute -}}
{{- $http := $values.httpRoute -}}
{{- $shared := or (and (not $grpc.hostnames) (not $http.hostnames)) (include "inferd.common" (list $grpc.hostnames $http.hostnames)) -}}
{{- if and $grpc.enabled $http.enabled (deepEqual $grpc.parentRefs $http.parentRefs) $shared -}}
{{- fail "httpRoute.hostnames: expected other names than those of grpcRoute.hostnames, because a gateway accepts only one of two routes of different kinds for the same names" -}}
{{- end -}}
{{- $grpc = $values.ingress -}}
{{- $http = $values.httpIngress -}}
{{- $shared = include "inferd.common" (list $grpc.hosts $http.hosts) -}}
{{- if and $grpc.enabled $http.enabled (eq $grpc.className $http.className) $shared -}}
{{- fail (printf "httpIngress.hosts: expected other names than those of ingress.hosts, got %s in both: each would get all paths" $shared) -}}
{{- end -}}
{{- end -}}

{{/* What two lists have in common; empty if nothing. */}}
{{- define "inferd.common" -}}
{{- $common := list -}}
{{- range first . }}{{ if has . (last $) }}{{ $common = append $common . }}{{ end }}{{ end -}}
{{ join ", " $common }}
{{- end -}}

{{- define "inferd.validateIngress" -}}
{{- $ingress := .Values.ingress -}}
{{- range $name := list "ingress" "httpIngress" -}}
{{- if and (get $.Values $name).enabled (not (get $.Values $name).hosts) -}}
{{- fail (printf "%s.hosts: expected at least one host name, got none" $name) -}}
{{- end -}}
{{- end -}}
{{- if and $ingress.enabled (not $ingress.tlsSecret) -}}
{{- fail "ingress.tlsSecret: expected the Secret of a certificate, because controllers accept gRPC over TLS only" -}}
{{- end -}}
{{- if not (include "inferd.showsCertificate" (dict "root" . "values" $ingress "by" list)) -}}
{{- fail "ingress.annotations: tls.clientCertificates is required, and ingress-nginx presents none to gRPC servers; set nginx.ingress.kubernetes.io/ssl-passthrough to true so that clients present theirs" -}}
{{- end -}}
{{- if not (include "inferd.showsCertificate" (dict "root" . "values" .Values.httpIngress "by" (list "proxy-ssl-secret"))) -}}
{{- fail "httpIngress.annotations: tls.clientCertificates is required, and ingress-nginx presents none by itself; set nginx.ingress.kubernetes.io/proxy-ssl-secret to the Secret of its certificate, or ssl-passthrough to true so that clients present theirs" -}}
{{- end -}}
{{- end -}}

{{/*
Not empty if the server gets the client certificate that it demands through an Ingress (its `values`), as far as that is
known: ingress-nginx needs an annotation for it, one of `by` among others.
*/}}
{{- define "inferd.showsCertificate" -}}
{{- $annotations := include "inferd.merged" (list .root.Values.commonAnnotations .values.annotations) | fromYaml -}}
{{- $shown := or (not .values.enabled) (not (include "inferd.isNginx" .values)) (ne .root.Values.tls.clientCertificates "required") -}}
{{- range concat (list "ssl-passthrough" "configuration-snippet" "server-snippet") .by -}}
{{- if hasKey $annotations (printf "nginx.ingress.kubernetes.io/%s" .) }}{{ $shown = true }}{{ end -}}
{{- end -}}
{{- if $shown }}true{{ end -}}
{{- end -}}

{{- define "inferd.validateScaling" -}}
{{- $scaling := .Values.autoscaling -}}
{{- if gt $scaling.minReplicas $scaling.maxReplicas -}}
{{- fail (printf "autoscaling.maxReplicas: expected minReplicas (%v) or more, got %v" $scaling.minReplicas $scaling.maxReplicas) -}}
{{- end -}}
{{- if and (eq $scaling.mode "keda") (not $scaling.keda.serverAddress) -}}
{{- fail "autoscaling.keda.serverAddress: expected the address of Prometheus, got none" -}}
{{- end -}}
{{- if and $scaling.mode $scaling.cpuPercent (not (dig "requests" "cpu" "" (.Values.resources | default dict))) -}}
{{- fail "autoscaling.cpuPercent: refers to resources.requests.cpu, which is not set; set it, or cpuPercent to 0" -}}
{{- end -}}
{{- if and $scaling.gpuPercent (not .Values.gpu.count) -}}
{{- fail "autoscaling.gpuPercent: there are no GPUs, set gpu.count or gpuPercent to 0" -}}
{{- end -}}
{{- $monitoring := .Values.monitoring -}}
{{- if and $monitoring.serviceMonitor.enabled $monitoring.podMonitor.enabled -}}
{{- fail "monitoring: expected either serviceMonitor or podMonitor, got both, which would count everything twice" -}}
{{- end -}}
{{- $scraped := or $monitoring.serviceMonitor.enabled $monitoring.podMonitor.enabled -}}
{{- if and $scraped (include "inferd.metricsTls" .) (eq .Values.tls.clientCertificates "required") (not $monitoring.tlsConfig) -}}
{{- fail "monitoring.tlsConfig: expected a client certificate, as tls.clientCertificates is required for metrics too; or set config.security.metrics_tls to false" -}}
{{- end -}}
{{- end -}}

{{- define "inferd.validateCluster" -}}
{{- $version := .Capabilities.KubeVersion.Version -}}
{{- $needs := dict -}}
{{- if .Values.models.image.reference }}{{ $_ := set $needs "models.image" "1.31" }}{{ end -}}
{{- if .Values.drain.preStopSeconds }}{{ $_ := set $needs "drain.preStopSeconds" "1.30" }}{{ end -}}
{{- if and .Values.batch.enabled (ne (.Values.batch.maxFailedIndexes | toString) "") -}}
{{- $_ := set $needs "batch.maxFailedIndexes" "1.29" -}}
{{- end -}}
{{- if .Values.service.trafficDistribution }}{{ $_ := set $needs "service.trafficDistribution" "1.30" }}{{ end -}}
{{- range $value, $least := $needs -}}
{{- if semverCompare (printf "<%s.0-0" $least) $version -}}
{{- fail (printf "%s: needs Kubernetes %s or newer, this is %s" $value $least $version) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What the schema cannot say: values that do not go together. Each text tells what to do. */}}

{{- define "inferd.validate" -}}
{{- include "inferd.validateConfig" . -}}
{{- include "inferd.validateSecurity" . -}}
{{- include "inferd.validateNetwork" . -}}
{{- include "inferd.validateScaling" . -}}
{{- include "inferd.validateCluster" . -}}
{{- end -}}

{{- define "inferd.validateConfig" -}}
{{- $instead := dict "models" "models" "server.grpc_port" "ports.grpc" "server.http_port" "ports.http"
  "server.drain_delay_s" "drain.delaySeconds" "server.drain_grace_s" "drain.graceSeconds"
  "security.tls" "tls" "security.tokens_file" "auth.tokens" "security.policy_file" "auth.policy"
  "security.jwt.jwks_file" "auth.jwks" -}}
{{- range $setting, $value := $instead -}}
{{- if include "inferd.setting" (dict "root" $ "path" $setting) -}}
{{- fail (printf "config.%s: the chart sets it, use the value %s instead" $setting $value) -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.ports.grpc .Values.ports.http }}{{ fail "ports.http: expected another port than ports.grpc" }}{{ end -}}
{{- if eq .Values.service.grpcPort .Values.service.httpPort -}}
{{- fail "service.httpPort: expected another port than service.grpcPort" -}}
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
{{- fail "tls.enabled: expected true, as a certificate is named or asked for" -}}
{{- end -}}
{{- if and .Values.auth.policy (not (include "inferd.authenticates" .)) -}}
{{- fail "auth.policy: nobody has a name for its rules, set auth.tokens, auth.jwks or config.security.spiffe too" -}}
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
{{- fail "probes.type: the kubelet brings neither TLS nor credentials to gRPC probes, use http or auto" -}}
{{- end -}}
{{- end -}}

{{- define "inferd.validateNetwork" -}}
{{- $policy := .Values.networkPolicy -}}
{{- if and $policy.enabled $policy.restrictEgress (not $policy.extraEgress) -}}
{{- $tracing := include "inferd.setting" (dict "root" . "path" "tracing.endpoint") -}}
{{- $keys := include "inferd.setting" (dict "root" . "path" "security.jwt.jwks_url") -}}
{{- range $value, $needs := dict "models.fetch" .Values.models.fetch.image "config.tracing.endpoint" $tracing "config.security.jwt.jwks_url" $keys -}}
{{- if $needs -}}
{{- fail (printf "%s: the network policy lets the pods connect to nobody, list where it is in networkPolicy.extraEgress or set networkPolicy.restrictEgress to false" $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.grpcRoute.enabled (not .Values.grpcRoute.parentRefs) -}}
{{- fail "grpcRoute.parentRefs: expected the gateway that the route belongs to, got none" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.hosts: expected a host name at least, got none" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.tlsSecret) -}}
{{- fail "ingress.tlsSecret: expected the Secret of a certificate, as controllers take gRPC by TLS only" -}}
{{- end -}}
{{- end -}}

{{- define "inferd.validateScaling" -}}
{{- $scaling := .Values.autoscaling -}}
{{- if gt $scaling.minReplicas $scaling.maxReplicas -}}
{{- fail (printf "autoscaling.maxReplicas: expected minReplicas (%v) or more, got %v" $scaling.minReplicas $scaling.maxReplicas) -}}
{{- end -}}
{{- if and (eq $scaling.mode "keda") (not $scaling.keda.serverAddress) -}}
{{- fail "autoscaling.keda.serverAddress: expected the address of Prometheus, got none" -}}
{{- end -}}
{{- if and $scaling.mode $scaling.cpuPercent (not (dig "requests" "cpu" "" .Values.resources)) -}}
{{- fail "autoscaling.cpuPercent: is a part of resources.requests.cpu, which is not set; set it, or cpuPercent to 0" -}}
{{- end -}}
{{- if and $scaling.gpuPercent (not .Values.gpu.count) -}}
{{- fail "autoscaling.gpuPercent: there are no GPUs, set gpu.count or gpuPercent to 0" -}}
{{- end -}}
{{- $monitoring := .Values.monitoring -}}
{{- if and $monitoring.serviceMonitor.enabled $monitoring.podMonitor.enabled -}}
{{- fail "monitoring: expected either serviceMonitor or podMonitor, got both, which would count everything twice" -}}
{{- end -}}
{{- $scraped := or $monitoring.serviceMonitor.enabled $monitoring.podMonitor.enabled -}}
{{- if and $scraped (include "inferd.httpTls" .) (eq .Values.tls.clientCertificates "required") (not $monitoring.tlsConfig) -}}
{{- fail "monitoring.tlsConfig: expected a client certificate, as tls.clientCertificates is required for metrics too; or set config.security.http_tls to false" -}}
{{- end -}}
{{- end -}}

{{- define "inferd.validateCluster" -}}
{{- $version := .Capabilities.KubeVersion.Version -}}
{{- $needs := dict -}}
{{- if .Values.models.image.reference }}{{ $_ := set $needs "models.image" "1.31" }}{{ end -}}
{{- if .Values.drain.preStopSeconds }}{{ $_ := set $needs "drain.preStopSeconds" "1.30" }}{{ end -}}
{{- if .Values.service.trafficDistribution }}{{ $_ := set $needs "service.trafficDistribution" "1.30" }}{{ end -}}
{{- range $value, $least := $needs -}}
{{- if semverCompare (printf "<%s.0-0" $least) $version -}}
{{- fail (printf "%s: needs Kubernetes %s or newer, this is %s" $value $least $version) -}}
{{- end -}}
{{- end -}}
{{- end -}}

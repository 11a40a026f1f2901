{{/* inferd.yaml: the settings of the chart, merged over the value config. */}}

{{/* A setting of config by its dotted path, as JSON; empty if it is not set. */}}
{{- define "inferd.setting" -}}
{{- $here := .root.Values.config -}}
{{- range splitList "." .path -}}
{{- $here = and (kindIs "map" $here) (get $here .) | default dict -}}
{{- end -}}
{{- if $here }}{{ toJson $here }}{{ end -}}
{{- end -}}

{{- define "inferd.modelPaths" -}}
{{- $paths := list -}}
{{- with .Values.models -}}
{{- if .persistentVolumeClaim.claimName }}{{ $paths = append $paths "/models/volume" }}{{ end -}}
{{- if .fetch.image }}{{ $paths = append $paths "/models/fetched" }}{{ end -}}
{{- if .image.reference }}{{ $paths = append $paths "/models/image" }}{{ end -}}
{{- $paths = concat $paths .extraPaths .remote.addresses -}}
{{- end -}}
{{ toJson $paths }}
{{- end -}}

{{/* The address to listen on. [::] is all interfaces, including those of IPv4. */}}
{{- define "inferd.host" -}}
{{- dig "server" "host" (ternary "[::]" "0.0.0.0" (eq (include "inferd.ipv6" .) "true")) .Values.config -}}
{{- end -}}

{{- define "inferd.ipv6" -}}
{{- if or (has "IPv6" .Values.service.ipFamilies) (hasSuffix "DualStack" (.Values.service.ipFamilyPolicy | default "")) }}true{{ end -}}
{{- end -}}

{{/* Not empty if metrics and HTTP probes use TLS. */}}
{{- define "inferd.metricsTls" -}}
{{- $security := dig "security" dict .Values.config | default dict -}}
{{- if and .Values.tls.enabled (ne (toString (get $security "metrics_tls")) "false") }}true{{ end -}}
{{- end -}}

{{/* The value that sets the trace collector; empty without one. */}}
{{- define "inferd.traces" -}}
{{- $variables := include "inferd.pluck" (dict "items" .Values.extraEnv "key" "name") | fromJsonArray -}}
{{- if include "inferd.setting" (dict "root" . "path" "tracing.endpoint") -}}
config.tracing.endpoint
{{- else if or (has "OTEL_EXPORTER_OTLP_ENDPOINT" $variables) (has "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" $variables) -}}
extraEnv
{{- end -}}
{{- end -}}

{{- define "inferd.authenticates" -}}
{{- $jwt := include "inferd.setting" (dict "root" . "path" "security.jwt.jwks_url") -}}
{{- $spiffe := include "inferd.setting" (dict "root" . "path" "security.spiffe.trust_domains") -}}
{{- if or .Values.auth.tokens.existingSecret .Values.auth.jwks.existingConfigMap $jwt $spiffe }}true{{ end -}}
{{- end -}}

{{- define "inferd.securitySettings" -}}
{{- $settings := dict -}}
{{- if .Values.auth.tokens.existingSecret -}}
{{- $_ := set $settings "tokens_file" "/etc/inferd/tokens/tokens.yaml" -}}
{{- end -}}
{{- if .Values.auth.policy }}{{ $_ := set $settings "policy_file" "/etc/inferd/policy/policy.yaml" }}{{ end -}}
{{- if .Values.auth.jwks.existingConfigMap -}}
{{- $_ := set $settings "jwt" (dict "jwks_file" "/etc/inferd/jwks/jwks.json") -}}
{{- end -}}
{{- if .Values.tls.enabled -}}
{{- $tls := dict "cert_file" "/etc/inferd/tls/tls.crt" "key_file" "/etc/inferd/tls/tls.key" -}}
{{- if eq .Values.tls.clientCertificates "required" -}}
{{- $_ := set $tls "client_certificates" "required" -}}
{{- $_ := set $tls "client_ca_file" "/etc/inferd/client-ca/ca.crt" -}}
{{- end -}}
{{- $_ := set $settings "tls" $tls -}}
{{- end -}}
{{ toJson $settings }}
{{- end -}}

{{/* Not empty if a volume keeps which models are loaded; it is called models-state, unless a claim template has it. */}}
{{- define "inferd.remembers" -}}
{{- with .Values.models.control.remember -}}
{{- if .claimTemplate }}{{ .claimTemplate }}{{ else if .volume }}models-state{{ end -}}
{{- end -}}
{{- end -}}

{{/* Not empty if there is a volume for the cache; it is called models-cache, unless a claim template has it. */}}
{{- define "inferd.caches" -}}
{{- with .Values.models -}}
{{- if .cache.claimTemplate }}{{ .cache.claimTemplate }}{{ else if or .cache.volume .remote.addresses }}models-cache{{ end -}}
{{- end -}}
{{- end -}}

{{/* The bytes of a quantity with Mi, Gi or Ti. */}}
{{- define "inferd.bytes" -}}
{{- $factors := dict "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mul (regexFind "^[0-9]+" .) (get $factors (regexFind "[A-Z]i$" .)) -}}
{{- end -}}

{{- define "inferd.repositorySettings" -}}
{{- $models := .Values.models -}}
{{- $settings := dict "mode" $models.control.mode "readiness" $models.readiness "exit_on_error" $models.exitOnError -}}
{{- if eq $models.control.mode "poll" -}}
{{- $_ := set $settings "poll_interval_s" $models.control.pollIntervalSeconds -}}
{{- end -}}
{{- with $models.control.load }}{{ $_ := set $settings "load" . }}{{ end -}}
{{- if $models.onDemand }}{{ $_ := set $settings "on_demand" true }}{{ end -}}
{{- with $models.memoryBudget }}{{ $_ := set $settings "memory_budget_bytes" (include "inferd.bytes" . | int64) }}{{ end -}}
{{- with $models.deviceMemoryBudget -}}
{{- $_ := set $settings "device_memory_budget_bytes" (include "inferd.bytes" . | int64) -}}
{{- end -}}
{{- if include "inferd.remembers" . }}{{ $_ := set $settings "remember" "/var/lib/inferd/models.json" }}{{ end -}}
{{ toJson $settings }}
{{- end -}}

{{- define "inferd.config" -}}
{{- $paths := include "inferd.modelPaths" . | fromJsonArray -}}
{{- $defaults := dict -}}
{{- if .Values.gpu.count -}}
{{- /* A replica without a GPU should fail instead of being slow. */ -}}
{{- $_ := set $defaults "runtime" (dict "providers" (list "cuda")) -}}
{{- end -}}
{{- if include "inferd.caches" . -}}
{{- $runtime := get $defaults "runtime" | default dict -}}
{{- $_ := set $defaults "runtime" (set $runtime "verdict_cache" "/var/cache/inferd/verdicts") -}}
{{- end -}}
{{- $server := dict "host" (include "inferd.host" .) "grpc_port" .Values.ports.grpc "metrics_port" .Values.ports.metrics -}}
{{- $_ := set $server "http_port" (ternary .Values.ports.http "none" .Values.http.enabled) -}}
{{- $_ = set $server "drain_delay_s" .Values.drain.delaySeconds -}}
{{- $_ = set $server "drain_grace_s" .Values.drain.graceSeconds -}}
{{- $ours := dict "server" $server "repository" (include "inferd.repositorySettings" . | fromJson) -}}
{{- if $paths }}{{ $_ := set $ours "models" $paths }}{{ end -}}
{{- with .Values.models.generationCache -}}
{{- $_ := set $ours "generation" (dict "cache_bytes" (include "inferd.bytes" . | int64)) -}}
{{- end -}}
{{- if include "inferd.caches" . -}}
{{- $bytes := div (mul (include "inferd.bytes" .Values.models.cache.size | int64) 4) 5 -}}
{{- $_ := set $ours "remote" (dict "cache" "/var/cache/inferd/files" "cache_bytes" $bytes) -}}
{{- end -}}
{{- with include "inferd.securitySettings" . | fromJson }}{{ $_ := set $ours "security" . }}{{ end -}}
{{ mergeOverwrite $defaults (deepCopy .Values.config) $ours | toYaml }}
{{- end -}}

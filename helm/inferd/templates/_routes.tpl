{{/* Routes to the server from outside the cluster. */}}

{{/*
The version of BackendTLSPolicy in the cluster: v1 since Gateway API 1.4, v1alpha3 before that in its experimental
channel. The newest if nothing is known of the Gateway API, as without a cluster. Empty if the API lacks it.
*/}}
{{- define "inferd.backendTlsVersion" -}}
{{- $has := .Capabilities.APIVersions -}}
{{- if $has.Has "gateway.networking.k8s.io/v1/BackendTLSPolicy" -}}
v1
{{- else if $has.Has "gateway.networking.k8s.io/v1alpha3/BackendTLSPolicy" -}}
v1alpha3
{{- else if not ($has.Has "gateway.networking.k8s.io/v1/GRPCRoute") -}}
v1
{{- end -}}
{{- end -}}

{{/* Not empty if the Ingress is for a controller with the annotations of ingress-nginx. */}}
{{- define "inferd.ingressNginx" -}}
{{- if contains "nginx" .Values.ingress.className }}true{{ end -}}
{{- end -}}

{{/*
The maximum duration of a call in seconds, during which streams may be silent: the maximum age of a connection with its
grace period, or a day.
*/}}
{{- define "inferd.longestCallSeconds" -}}
{{- $connections := dig "server" "connections" dict .Values.config -}}
{{- $age := get $connections "max_age_s" | default 0 -}}
{{- $grace := dig "max_age_grace_s" 300 $connections -}}
{{- if $age -}}
{{- /* The server adds up to a tenth to the age. */ -}}
{{- ceil (addf (mulf $age 1.1) $grace) | int64 -}}
{{- else -}}
86400
{{- end -}}
{{- end -}}

{{/*
Annotations of ingress-nginx for gRPC. Its limit for bodies counts all messages of a stream together, so there must be
none: the server limits each message.
*/}}
{{- define "inferd.nginxAnnotations" -}}
nginx.ingress.kubernetes.io/backend-protocol: {{ ternary "GRPCS" "GRPC" .Values.tls.enabled }}
nginx.ingress.kubernetes.io/proxy-body-size: "0"
nginx.ingress.kubernetes.io/proxy-read-timeout: {{ include "inferd.longestCallSeconds" . | quote }}
nginx.ingress.kubernetes.io/proxy-send-timeout: {{ include "inferd.longestCallSeconds" . | quote }}
{{- end -}}

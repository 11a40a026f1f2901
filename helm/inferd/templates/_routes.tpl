{{/* Ways to the server from outside the cluster. */}}

{{/*
The version of BackendTLSPolicy that the cluster has: v1 since Gateway API 1.4, v1alpha3 before that in its experimental
channel. Where nothing of the Gateway API is known, as without a cluster, the newest. Empty: it has the API without it.
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

{{/* Whether the Ingress is for a controller that reads the annotations of ingress-nginx: not empty if so. */}}
{{- define "inferd.ingressNginx" -}}
{{- if contains "nginx" .Values.ingress.className }}true{{ end -}}
{{- end -}}

{{/*
How many seconds a call may last at most: streams may be silent for all of that. What is older than a connection may be
is cut off by the server; otherwise it is a day.
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
What ingress-nginx needs to be told for gRPC. Its limit for bodies holds for all messages of a stream together, so there
must be none: the server has one for each message.
*/}}
{{- define "inferd.nginxAnnotations" -}}
nginx.ingress.kubernetes.io/backend-protocol: {{ ternary "GRPCS" "GRPC" .Values.tls.enabled }}
nginx.ingress.kubernetes.io/proxy-body-size: "0"
nginx.ingress.kubernetes.io/proxy-read-timeout: {{ include "inferd.longestCallSeconds" . | quote }}
nginx.ingress.kubernetes.io/proxy-send-timeout: {{ include "inferd.longestCallSeconds" . | quote }}
{{- end -}}

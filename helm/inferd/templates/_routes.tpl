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

{{/* Not empty if there is a BackendTLSPolicy. */}}
{{- define "inferd.backendTls" -}}
{{- $routed := or .Values.grpcRoute.enabled .Values.httpRoute.enabled -}}
{{- if and $routed .Values.tls.enabled .Values.grpcRoute.backendTls.create }}true{{ end -}}
{{- end -}}

{{/* Not empty if an Ingress (its values) is for a controller with the annotations of ingress-nginx. */}}
{{- define "inferd.isNginx" -}}
{{- if contains "nginx" .className }}true{{ end -}}
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
{{- define "inferd.nginxGrpcAnnotations" -}}
nginx.ingress.kubernetes.io/backend-protocol: {{ ternary "GRPCS" "GRPC" .Values.tls.enabled }}
nginx.ingress.kubernetes.io/proxy-body-size: "0"
nginx.ingress.kubernetes.io/proxy-read-timeout: {{ include "inferd.longestCallSeconds" . | quote }}
nginx.ingress.kubernetes.io/proxy-send-timeout: {{ include "inferd.longestCallSeconds" . | quote }}
{{- end -}}

{{/*
Annotations of ingress-nginx for HTTP. The server limits bodies, and refuses large ones before they are sent; nginx would
first write each of them to its disk.
*/}}
{{- define "inferd.nginxHttpAnnotations" -}}
nginx.ingress.kubernetes.io/backend-protocol: {{ ternary "HTTPS" "HTTP" .Values.tls.enabled }}
nginx.ingress.kubernetes.io/proxy-body-size: "0"
nginx.ingress.kubernetes.io/proxy-request-buffering: "off"
nginx.ingress.kubernetes.io/proxy-read-timeout: {{ .Values.http.timeoutSeconds | quote }}
nginx.ingress.kubernetes.io/proxy-send-timeout: {{ .Values.http.timeoutSeconds | quote }}
{{- end -}}

{{/* An Ingress: its `values`, `name`, annotations that nginx needs (`nginx`), and the `port` of the Service. */}}
{{- define "inferd.ingress" -}}
{{- $about := dict "root" .root "name" .name "annotations" .values.annotations -}}
{{- if include "inferd.isNginx" .values }}{{ $_ := set $about "suggested" (fromYaml .nginx) }}{{ end -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{- include "inferd.metadata" $about | nindent 2 }}
spec:
  ingressClassName: {{ .values.className | quote }}
  {{- with .values.tlsSecret }}
  tls:
    - secretName: {{ . | quote }}
      hosts: {{- toYaml $.values.hosts | nindent 8 }}
  {{- end }}
  rules:
    {{- range .values.hosts }}
    - host: {{ . | quote }}
      http:
        paths:
          - path: /
            pathType: Prefix
            backend: {service: {name: {{ include "inferd.fullname" $.root }}, port: {name: {{ $.port }}}}}
    {{- end }}
{{- end -}}

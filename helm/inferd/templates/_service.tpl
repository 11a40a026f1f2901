{{/* What the Services have in common. What is published outside has no way to the metrics. */}}

{{- define "inferd.callPorts" -}}
- name: grpc
  port: {{ .Values.service.grpcPort }}
  targetPort: grpc
  appProtocol: {{ ternary "https" "kubernetes.io/h2c" .Values.tls.enabled }}
{{- if .Values.http.enabled }}
- name: http
  port: {{ .Values.service.httpPort }}
  targetPort: http
  appProtocol: {{ ternary "https" "http" .Values.tls.enabled }}
{{- end }}
{{- end -}}

{{- define "inferd.metricsPort" -}}
- name: metrics
  port: {{ .Values.service.metricsPort }}
  targetPort: metrics
  appProtocol: {{ ternary "https" "http" (eq (include "inferd.metricsTls" .) "true") }}
{{- end -}}

{{/* What is set of service's values: the IP families, which are all Services' own, and those that `more` names. */}}
{{- define "inferd.serviceSettings" -}}
{{- $settings := dict -}}
{{- range $name := concat (list "ipFamilyPolicy" "ipFamilies") .more -}}
{{- with get $.root.Values.service $name }}{{ $_ := set $settings $name . }}{{ end -}}
{{- end -}}
{{- with $settings }}{{ toYaml . }}{{ end -}}
{{- end -}}

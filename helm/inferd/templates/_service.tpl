{{/* Ports of both Services. A headless one has no ports of its own: callers reach those of the pods. */}}
{{- define "inferd.servicePorts" -}}
- name: grpc
  port: {{ .Values.service.grpcPort }}
  targetPort: grpc
  appProtocol: {{ ternary "https" "kubernetes.io/h2c" .Values.tls.enabled }}
- name: http
  port: {{ .Values.service.httpPort }}
  targetPort: http
  appProtocol: {{ ternary "https" "http" (eq (include "inferd.httpTls" .) "true") }}
{{- end -}}

{{/* The scrape configuration of both kinds of monitors. */}}
{{- define "inferd.endpoint" -}}
- port: metrics
  path: /metrics
  interval: {{ .Values.monitoring.interval }}
  scrapeTimeout: {{ .Values.monitoring.interval }}
  {{- if include "inferd.metricsTls" . }}
  scheme: https
  tlsConfig:
    {{- if .Values.monitoring.tlsConfig }}
    {{- toYaml .Values.monitoring.tlsConfig | nindent 4 }}
    {{- else }}
    ca: {secret: {name: {{ include "inferd.tlsSecret" . }}, key: ca.crt}}
    serverName: {{ include "inferd.fullname" . }}.{{ .Release.Namespace }}.svc
    {{- end }}
  {{- end }}
{{- end -}}

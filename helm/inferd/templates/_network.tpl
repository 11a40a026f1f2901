{{/* Egress of a network policy: DNS, and what is added. Empty if it is not restricted. */}}
{{- define "inferd.egress" -}}
{{- with .Values.networkPolicy -}}
{{- if .restrictEgress -}}
- ports:
    {{- range .dns.ports }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .dns.to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- with .extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

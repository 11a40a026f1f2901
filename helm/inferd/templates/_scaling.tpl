{{/* What the autoscalers ask for: the number of replicas that all offered rows would keep fully busy. */}}

{{- define "inferd.selector" -}}
{namespace="{{ .Release.Namespace }}", job="{{ .Release.Name }}"}
{{- end -}}

{{- define "inferd.loadQuery" -}}
{{- $scaling := .Values.autoscaling -}}
{{- if $scaling.keda.query -}}
{{ $scaling.keda.query }}
{{- else if $scaling.rowsPerSecondPerReplica -}}
sum(inferd:offered_rows:rate2m{{ include "inferd.selector" . }}) / {{ $scaling.rowsPerSecondPerReplica }}
{{- else -}}
sum(inferd:offered_load:replicas{{ include "inferd.selector" . }})
{{- end -}}
{{- end -}}

{{- define "inferd.gpuQuery" -}}
sum(max by (instance) (inferd_gpu_utilization_ratio{{ include "inferd.selector" . }})) * 100
{{- end -}}

{{- define "inferd.scaleTarget" -}}
apiVersion: apps/v1
kind: {{ .Values.kind }}
name: {{ include "inferd.fullname" . }}
{{- end -}}

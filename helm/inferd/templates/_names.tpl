{{/* Names of objects, and selector labels. */}}

{{/*
Truncates `text` to `most` letters, with a hash of the whole at the end, so that long names do not collide.
*/}}
{{- define "inferd.cut" -}}
{{- if le (len .text) .most -}}
{{ .text }}
{{- else -}}
{{ .text | trunc (int (sub .most 9)) | trimAll "-._" }}-{{ .text | sha256sum | trunc 8 }}
{{- end -}}
{{- end -}}

{{- define "inferd.name" -}}
{{- include "inferd.cut" (dict "text" (default .Chart.Name .Values.nameOverride) "most" 63) -}}
{{- end -}}

{{- define "inferd.wholeName" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $default := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $default .Values.fullnameOverride -}}
{{- end -}}

{{/*
The prefix of all objects' names. Its 50 letters leave room for the longest suffix of a Service or ConfigMap (63 letters
in all), and for the revision that Kubernetes appends to a StatefulSet's name in a label of its pods.
*/}}
{{- define "inferd.fullname" -}}
{{- $whole := include "inferd.wholeName" . -}}
{{- $plain := regexReplaceAll "[^a-z0-9-]" (lower $whole) "-" -}}
{{- if ne $plain $whole -}}
{{- /* Releases may have dots in their names, Services may not. */ -}}
{{- $plain = printf "%s-%s" $plain ($whole | sha256sum | trunc 8) -}}
{{- end -}}
{{- include "inferd.cut" (dict "text" $plain "most" 50) -}}
{{- end -}}

{{/* The labels that select this release's pods; those of a Deployment are immutable. */}}
{{- define "inferd.selectorLabels" -}}
app.kubernetes.io/name: {{ include "inferd.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Labels of the test pod, which the Services must not select. */}}
{{- define "inferd.testLabels" -}}
app.kubernetes.io/name: {{ include "inferd.cut" (dict "text" (include "inferd.name" .) "most" 58) }}-test
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "inferd.headlessName" -}}
{{ include "inferd.fullname" . }}-headless
{{- end -}}

{{- define "inferd.metricsName" -}}
{{ include "inferd.fullname" . }}-metrics
{{- end -}}

{{- define "inferd.httpName" -}}
{{ include "inferd.fullname" . }}-http
{{- end -}}

{{- define "inferd.policyName" -}}
{{ include "inferd.fullname" . }}-policy
{{- end -}}

{{- define "inferd.serviceAccountName" -}}
{{- $default := ternary (include "inferd.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $default .Values.serviceAccount.name -}}
{{- end -}}

{{- define "inferd.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- define "inferd.tlsSecret" -}}
{{- default (printf "%s-tls" (include "inferd.fullname" .)) .Values.tls.existingSecret -}}
{{- end -}}

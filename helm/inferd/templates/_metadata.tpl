{{/* Labels and annotations, merged from all values here, so that no key occurs twice. */}}

{{/* Merges a list of maps; later ones take precedence. */}}
{{- define "inferd.merged" -}}
{{- $merged := dict -}}
{{- range . -}}
{{- range $key, $value := . }}{{ $_ := set $merged $key $value }}{{ end -}}
{{- end -}}
{{- with $merged }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/* Text as a label value: versions may be longer, and contain a "+". */}}
{{- define "inferd.labelValue" -}}
{{- regexReplaceAll "[^A-Za-z0-9._-]" . "_" | trunc 63 | trimAll "-._" -}}
{{- end -}}

{{/*
The metadata of an object: `name` (a pod template has none), further `labels` and `annotations`; `suggested`, annotations
that all others override; and `identity`, the selector labels of objects other than the server's.
*/}}
{{- define "inferd.metadata" -}}
{{- $root := .root -}}
{{- $about := dict "app.kubernetes.io/version" (include "inferd.labelValue" $root.Chart.AppVersion) -}}
{{- $chart := printf "%s-%s" $root.Chart.Name $root.Chart.Version -}}
{{- $_ := set $about "helm.sh/chart" (include "inferd.labelValue" $chart) -}}
{{- $identity := default (include "inferd.selectorLabels" $root) .identity | fromYaml -}}
{{- $_ := set $identity "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- with .name -}}
name: {{ . | quote }}
{{ end -}}
labels: {{- include "inferd.merged" (list $about $root.Values.commonLabels .labels $identity) | nindent 2 }}
{{- with include "inferd.merged" (list .suggested $root.Values.commonAnnotations .annotations) }}
annotations: {{- . | nindent 2 }}
{{- end }}
{{- end -}}

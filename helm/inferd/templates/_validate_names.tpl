{{/* Checks names that must be unique: of objects, labels, annotations, variables, volumes, containers and ports. */}}

{{- define "inferd.validateNames" -}}
{{- include "inferd.validateObjectNames" . -}}
{{- include "inferd.validateLabels" . -}}
{{- include "inferd.validateAnnotations" . -}}
{{- include "inferd.validateEnvironment" . -}}
{{- include "inferd.validateVolumes" . -}}
{{- include "inferd.validateContainers" . -}}
{{- end -}}

{{- define "inferd.validateObjectNames" -}}
{{- if not (regexMatch "^[a-z]" (include "inferd.fullname" .)) -}}
{{- fail (printf "fullnameOverride: expected a name that begins with a letter, as names of Services do, got %s" (include "inferd.wholeName" .)) -}}
{{- end -}}
{{- end -}}

{{/*
Rejects names of `items` (under `key`) that are among those of the chart (`ours`), and duplicates. `value` is the name of
the user's value.
*/}}
{{- define "inferd.requireNew" -}}
{{- $seen := list -}}
{{- range .items -}}
{{- $name := get . $.key | toString -}}
{{- if has $name $.ours -}}
{{- fail (printf "%s: the chart itself sets %s, expected another %s" $.value $name $.key) -}}
{{- end -}}
{{- if has $name $seen -}}
{{- fail (printf "%s: got %s twice, expected each %s once" $.value $name $.key) -}}
{{- end -}}
{{- $seen = append $seen $name -}}
{{- end -}}
{{- end -}}

{{/* The values of `key` in a list of maps, as JSON. */}}
{{- define "inferd.pluck" -}}
{{- $found := list -}}
{{- range .items }}{{ $found = append $found (get . $.key | toString) }}{{ end -}}
{{ toJson $found }}
{{- end -}}

{{- define "inferd.validateLabels" -}}
{{- $monitoring := .Values.monitoring -}}
{{- $identity := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/managed-by" -}}
{{- $all := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels
  "batch.labels" .Values.batch.labels "batch.podLabels" .Values.batch.podLabels
  "monitoring.serviceMonitor.labels" $monitoring.serviceMonitor.labels
  "monitoring.podMonitor.labels" $monitoring.podMonitor.labels
  "monitoring.rules.labels" $monitoring.rules.labels "monitoring.dashboard.labels" ($monitoring.dashboard.labels | default dict) -}}
{{- range $value, $labels := $all -}}
{{- range $key := $identity -}}
{{- if hasKey $labels $key -}}
{{- fail (printf "%s: the chart itself sets %s, which identifies its objects; leave it out (nameOverride sets the name)" $value $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if hasKey .Values.commonLabels "app.kubernetes.io/component" -}}
{{- fail "commonLabels: the chart itself sets app.kubernetes.io/component, which distinguishes its Services; set it in podLabels" -}}
{{- end -}}
{{- end -}}

{{- define "inferd.validateAnnotations" -}}
{{- $all := dict "commonAnnotations" .Values.commonAnnotations "podAnnotations" .Values.podAnnotations
  "batch.annotations" .Values.batch.annotations "batch.podAnnotations" .Values.batch.podAnnotations
  "serviceAccount.annotations" .Values.serviceAccount.annotations "service.annotations" .Values.service.annotations
  "monitoring.dashboard.annotations" .Values.monitoring.dashboard.annotations
  "grpcRoute.annotations" .Values.grpcRoute.annotations "ingress.annotations" .Values.ingress.annotations
  "httpRoute.annotations" .Values.httpRoute.annotations "httpIngress.annotations" .Values.httpIngress.annotations -}}
{{- range $value, $annotations := $all -}}
{{- range $key, $_ := $annotations -}}
{{- if or (eq $key "checksum/config") (hasPrefix "helm.sh/hook" $key) (hasPrefix "meta.helm.sh/" $key) -}}
{{- fail (printf "%s: the chart or helm itself sets %s, leave it out" $value $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "inferd.validateEnvironment" -}}
{{- $ours := include "inferd.pluck" (dict "items" (include "inferd.ownEnvironment" . | fromYamlArray) "key" "name") | fromJsonArray -}}
{{- include "inferd.requireNew" (dict "value" "extraEnv" "key" "name" "items" .Values.extraEnv "ours" $ours) -}}
{{- include "inferd.requireNew" (dict "value" "models.fetch.env" "key" "name" "items" .Values.models.fetch.env "ours" list) -}}
{{- include "inferd.validateSettings" . -}}
{{- end -}}

{{/* Variables and arguments for settings of the chart, which would take precedence over the chart's. */}}
{{- define "inferd.validateSettings" -}}
{{- $instead := include "inferd.insteadOfSettings" . | fromYaml -}}
{{- $_ := set $instead "server.host" "config.server.host" -}}
{{- range $setting, $value := $instead -}}
{{- $variable := printf "INFERD_%s" ($setting | replace "." "__" | upper) -}}
{{- range $.Values.extraEnv -}}
{{- if regexMatch (printf "^(INFERD_CONFIG|%s(__.*)?)$" $variable) .name -}}
{{- fail (printf "extraEnv: the chart itself sets %s, use the value %s instead" .name (ternary "config" $value (eq .name "INFERD_CONFIG"))) -}}
{{- end -}}
{{- end -}}
{{- $flag := $setting | replace "server." "--" | replace "_" "-" -}}
{{- range $.Values.extraArgs -}}
{{- if regexMatch (printf "^(--config|%s)(=|$)|^(--set=)?%s[.=]" $flag ($setting | replace "." "[.]")) . -}}
{{- fail (printf "extraArgs: the chart itself sets %s, use the value %s instead" . (ternary "config" $value (hasPrefix "--config" .))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "inferd.validateVolumes" -}}
{{- $volumes := include "inferd.pluck" (dict "items" (include "inferd.ownVolumes" . | fromYamlArray) "key" "name") | fromJsonArray -}}
{{- include "inferd.requireNew" (dict "value" "extraVolumes" "key" "name" "items" .Values.extraVolumes "ours" $volumes) -}}
{{- $claims := list -}}
{{- range .Values.volumeClaimTemplates }}{{ $claims = append $claims (default dict .metadata) }}{{ end -}}
{{- $volumes = concat $volumes (include "inferd.pluck" (dict "items" .Values.extraVolumes "key" "name") | fromJsonArray) -}}
{{- include "inferd.requireNew" (dict "value" "volumeClaimTemplates" "key" "name" "items" $claims "ours" $volumes) -}}
{{- $paths := include "inferd.pluck" (dict "items" (include "inferd.ownMounts" . | fromYamlArray) "key" "mountPath") | fromJsonArray -}}
{{- include "inferd.requireNew" (dict "value" "extraVolumeMounts" "key" "mountPath" "items" .Values.extraVolumeMounts "ours" $paths) -}}
{{- end -}}

{{- define "inferd.validateContainers" -}}
{{- $ours := list "inferd" "fetch-models" -}}
{{- include "inferd.requireNew" (dict "value" "extraContainers" "key" "name" "items" .Values.extraContainers "ours" $ours) -}}
{{- $ours = concat $ours (include "inferd.pluck" (dict "items" .Values.extraContainers "key" "name") | fromJsonArray) -}}
{{- include "inferd.requireNew" (dict "value" "extraInitContainers" "key" "name" "items" .Values.extraInitContainers "ours" $ours) -}}
{{- $names := list "grpc" "metrics" -}}
{{- if .Values.http.enabled }}{{ $names = append $names "http" }}{{ end -}}
{{- $numbers := list -}}
{{- range $names }}{{ $numbers = append $numbers (get $.Values.ports . | toString) }}{{ end -}}
{{- range $value := list "extraContainers" "extraInitContainers" -}}
{{- range get $.Values $value -}}
{{- $where := printf "%s: ports of %s" $value .name -}}
{{- include "inferd.requireNew" (dict "value" $where "key" "containerPort" "items" (default list .ports) "ours" $numbers) -}}
{{- $named := list -}}
{{- range .ports }}{{ if .name }}{{ $named = append $named . }}{{ end }}{{ end -}}
{{- include "inferd.requireNew" (dict "value" $where "key" "name" "items" $named "ours" $names) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Checks of the values of batch. */}}

{{- define "inferd.validateBatch" -}}
{{- $batch := .Values.batch -}}
{{- if $batch.enabled -}}
{{- include "inferd.validateBatchData" . -}}
{{- include "inferd.validateBatchJob" . -}}
{{- include "inferd.withBatchValues" (dict "root" . "template" "inferd.validateBatchNames") -}}
{{- if $batch.only }}{{ include "inferd.validateBatchOnly" . }}{{ end -}}
{{- else if $batch.only -}}
{{- fail "batch.enabled: expected true beside batch.only, without which there would be neither server nor Job" -}}
{{- end -}}
{{- end -}}

{{/* What it reads and writes. */}}
{{- define "inferd.validateBatchData" -}}
{{- $batch := .Values.batch -}}
{{- if not $batch.inputs -}}
{{- fail "batch.inputs: expected at least one file, directory, glob or address to read, got none" -}}
{{- end -}}
{{- if not $batch.output -}}
{{- fail "batch.output: expected the path or address of the directory or file to write, got none" -}}
{{- end -}}
{{- $isLasting := contains "://" $batch.output -}}
{{- $mounts := $batch.extraVolumeMounts | concat .Values.extraVolumeMounts -}}
{{- if $batch.persistentVolumeClaim.claimName }}{{ $mounts = append $mounts (dict "mountPath" "/data") }}{{ end -}}
{{- range $mounts -}}
{{- $path := printf "%s/" (trimSuffix "/" .mountPath) -}}
{{- if and (hasPrefix $path $batch.output) (not .readOnly) }}{{ $isLasting = true }}{{ end -}}
{{- end -}}
{{- if not $isLasting -}}
{{- fail (printf "batch.output: expected an address such as s3://bucket/answers, or a path in a volume that can be written, such as /data/answers with batch.persistentVolumeClaim.claimName, got %s" $batch.output) -}}
{{- end -}}
{{- end -}}

{{- define "inferd.validateBatchJob" -}}
{{- $batch := .Values.batch -}}
{{- if gt (int $batch.parallelism) (int $batch.indexes) -}}
{{- fail (printf "batch.parallelism: expected batch.indexes (%v) or fewer, got %v" $batch.indexes $batch.parallelism) -}}
{{- end -}}
{{- if ne ($batch.maxFailedIndexes | toString) "" -}}
{{- if gt (int $batch.maxFailedIndexes) (int $batch.indexes) -}}
{{- fail (printf "batch.maxFailedIndexes: expected batch.indexes (%v) or fewer, got %v" $batch.indexes $batch.maxFailedIndexes) -}}
{{- end -}}
{{- end -}}
{{- if and $batch.persistentVolumeClaim.subPath (not $batch.persistentVolumeClaim.claimName) -}}
{{- fail "batch.persistentVolumeClaim.claimName: expected the claim that subPath is a directory of, got none" -}}
{{- end -}}
{{- $ours := dict "--config" "config" "--index" "batch.indexes" "--indexes" "batch.indexes" "--server" "batch.server" "--accept-errors" "batch.failOnRowErrors" -}}
{{- if has "--overwrite" $batch.extraArgs -}}
{{- fail "batch.extraArgs: --overwrite would make each try begin from nothing; set another batch.output, or delete what is there" -}}
{{- end -}}
{{- range $flag, $value := $ours -}}
{{- range $batch.extraArgs -}}
{{- if regexMatch (printf "^%s(=|$)" $flag) . -}}
{{- fail (printf "batch.extraArgs: the chart itself sets %s, use the value %s instead" . $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* In the values of the Job's pods. */}}
{{- define "inferd.validateBatchNames" -}}
{{- $ours := include "inferd.pluck" (dict "items" (include "inferd.ownEnvironment" . | fromYamlArray) "key" "name") | fromJsonArray -}}
{{- $ours = append $ours "JOB_COMPLETION_INDEX" -}}
{{- include "inferd.requireNew" (dict "value" "extraEnv and batch.extraEnv" "key" "name" "items" .Values.extraEnv "ours" $ours) -}}
{{- $ours = include "inferd.pluck" (dict "items" (include "inferd.batchVolumes" . | fromYamlArray) "key" "name") | fromJsonArray -}}
{{- include "inferd.requireNew" (dict "value" "extraVolumes and batch.extraVolumes" "key" "name" "items" .Values.extraVolumes "ours" $ours) -}}
{{- $ours = include "inferd.pluck" (dict "items" (include "inferd.batchMounts" . | fromYamlArray) "key" "mountPath") | fromJsonArray -}}
{{- include "inferd.requireNew" (dict "value" "extraVolumeMounts and batch.extraVolumeMounts" "key" "mountPath" "items" .Values.extraVolumeMounts "ours" $ours) -}}
{{- end -}}

{{/* What needs a server. */}}
{{- define "inferd.validateBatchOnly" -}}
{{- $values := .Values -}}
{{- $needs := dict "autoscaling.mode" $values.autoscaling.mode "tls.enabled" $values.tls.enabled
  "volumeClaimTemplates" $values.volumeClaimTemplates
  "auth.tokens" $values.auth.tokens.existingSecret "auth.policy" $values.auth.policy
  "auth.jwks" $values.auth.jwks.existingConfigMap
  "monitoring.serviceMonitor" $values.monitoring.serviceMonitor.enabled
  "monitoring.podMonitor" $values.monitoring.podMonitor.enabled "extraContainers" $values.extraContainers -}}
{{- range $name := list "grpcRoute" "httpRoute" "ingress" "httpIngress" -}}
{{- $_ := set $needs $name (get $values $name).enabled -}}
{{- end -}}
{{- range $name, $isSet := $needs -}}
{{- if $isSet -}}
{{- fail (printf "%s: it is for a server, and batch.only leaves the server out; set one of them back to its default" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

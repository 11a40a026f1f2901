{{/* The Job of an offline job. */}}

{{/* Not empty if there is a server: batch.only is for a Job alone. */}}
{{- define "inferd.serves" -}}
{{- if not (and .Values.batch.enabled .Values.batch.only) }}true{{ end -}}
{{- end -}}

{{- define "inferd.batchName" -}}
{{ include "inferd.cut" (dict "text" (include "inferd.name" .) "most" 57) }}-batch
{{- end -}}

{{/* Labels of the Job's pods, which the Services must not select. */}}
{{- define "inferd.batchLabels" -}}
app.kubernetes.io/name: {{ include "inferd.batchName" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/*
Includes `template` as for the server, with the values that the Job has instead: nothing of callers, credentials and
claims of single replicas, no GPU if a server runs the batches, and what is set in batch. The verdicts of models are cached for the pod only, because a claim
may belong to one node.
*/}}
{{- define "inferd.withBatchValues" -}}
{{- $batch := .root.Values.batch -}}
{{- $values := deepCopy .root.Values -}}
{{- $claims := list -}}
{{- range $values.volumeClaimTemplates }}{{ $claims = append $claims (dig "metadata" "name" "" .) }}{{ end -}}
{{- $mounts := $batch.extraVolumeMounts -}}
{{- range $values.extraVolumeMounts }}{{ if not (has .name $claims) }}{{ $mounts = append $mounts . }}{{ end }}{{ end -}}
{{- $models := dict "control" (dict "remember" (dict "volume" dict "claimTemplate" "")) -}}
{{- if include "inferd.caches" .root -}}
{{- $cache := dict "emptyDir" (dict "sizeLimit" $values.models.cache.size) -}}
{{- $_ := set $models "cache" (dict "claimTemplate" "" "volume" $cache "size" $values.models.cache.size) -}}
{{- end -}}
{{- $own := dict "volumeClaimTemplates" list "extraVolumeMounts" $mounts
  "models" (mergeOverwrite $values.models $models)
  "auth" (dict "tokens" (dict "existingSecret" "") "policy" dict "jwks" (dict "existingConfigMap" ""))
  "tls" (dict "enabled" false "clientCertificates" "none")
  "extraVolumes" (concat $values.extraVolumes $batch.extraVolumes)
  "extraEnv" (concat $values.extraEnv $batch.extraEnv)
  "extraEnvFrom" (concat $values.extraEnvFrom $batch.extraEnvFrom)
  "tolerations" (concat $values.tolerations $batch.tolerations) -}}
{{- if $batch.server -}}
{{- $_ := set $own "gpu" (dict "count" 0 "migProfile" "" "runtimeClassName" "") -}}
{{- end -}}
{{- range $name := list "resources" "nodeSelector" "priorityClassName" -}}
{{- with get $batch $name }}{{ $_ := set $own $name . }}{{ end -}}
{{- end -}}
{{- range $name, $value := $own }}{{ $_ := set $values $name $value }}{{ end -}}
{{- $root := dict "Values" $values "Chart" .root.Chart "Release" .root.Release "Capabilities" .root.Capabilities -}}
{{- include .template $root -}}
{{- end -}}

{{- define "inferd.batchArguments" -}}
{{- $batch := .Values.batch -}}
{{- /* $(…) is the variable that Kubernetes sets in pods of Indexed Jobs. */ -}}
{{- $args := list "batch" "--config" "/etc/inferd/config/inferd.yaml" "--index" "$(JOB_COMPLETION_INDEX)" -}}
{{- $args = concat $args (list "--indexes" ($batch.indexes | toString)) -}}
{{- if not $batch.failOnRowErrors }}{{ $args = append $args "--accept-errors" }}{{ end -}}
{{- with $batch.server }}{{ $args = concat $args (list "--server" .) }}{{ end -}}
{{ concat $args $batch.extraArgs (list "--" $batch.model) $batch.inputs (list $batch.output) | toJson }}
{{- end -}}

{{/* The volume for data, and mounts of the Job's pods. */}}
{{- define "inferd.batchMounts" -}}
{{- include "inferd.ownMounts" . }}
{{- with .Values.batch.persistentVolumeClaim }}
{{- if .claimName }}
- name: batch-data
  mountPath: /data
  {{- with .subPath }}
  subPath: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "inferd.batchVolumes" -}}
{{- include "inferd.ownVolumes" . }}
{{- with .Values.batch.persistentVolumeClaim.claimName }}
- name: batch-data
  persistentVolumeClaim: {claimName: {{ . | quote }}}
{{- end }}
{{- end -}}

{{- define "inferd.batchContainer" -}}
name: inferd
image: {{ include "inferd.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [inferd]
args: {{ include "inferd.batchArguments" . }}
{{- with concat (include "inferd.ownEnvironment" . | fromYamlArray) .Values.extraEnv }}
env: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat .Values.models.remote.envFrom .Values.extraEnvFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
resources: {{- include "inferd.resources" . | nindent 2 }}
securityContext: {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  {{- include "inferd.batchMounts" . | nindent 2 }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "inferd.batchPod" -}}
restartPolicy: Never
{{ include "inferd.everyPod" . }}
automountServiceAccountToken: {{ .Values.serviceAccount.automountToken }}
terminationGracePeriodSeconds: {{ .Values.batch.stopSeconds }}
{{- with include "inferd.initContainers" . | trim }}
initContainers: {{- . | nindent 2 }}
{{- end }}
containers:
  - {{- include "inferd.batchContainer" . | nindent 4 }}
volumes:
  {{- include "inferd.batchVolumes" . | nindent 2 }}
  {{- with .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- /* They go where the server's nodes are, but need not stand beside or apart from what the server's pods do. */}}
{{- with .Values.affinity.nodeAffinity }}
affinity:
  nodeAffinity: {{- toYaml . | nindent 4 }}
{{- end }}
{{- with .Values.gpu.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Not empty if this cluster counts failures by index, and has rules for exit codes alone. */}}
{{- define "inferd.retriesByIndex" -}}
{{- if semverCompare ">=1.29.0-0" .Capabilities.KubeVersion.Version }}true{{ end -}}
{{- end -}}

{{/* What cannot be changed in a Job that exists; its name has the hash. */}}
{{- define "inferd.batchSpec" -}}
{{- $batch := .Values.batch -}}
completionMode: Indexed
completions: {{ $batch.indexes }}
{{- if include "inferd.retriesByIndex" . }}
backoffLimitPerIndex: {{ $batch.retries }}
{{- if ne ($batch.maxFailedIndexes | toString) "" }}
maxFailedIndexes: {{ $batch.maxFailedIndexes }}
{{- end }}
{{- else }}
backoffLimit: {{ $batch.retries }}
{{- end }}
podFailurePolicy:
  rules:
    # Stopped from outside: that is no failure, and the next pod goes on.
    - action: Ignore
      onPodConditions: [{type: DisruptionTarget, status: "True"}]
    {{- if include "inferd.retriesByIndex" . }}
    - action: Ignore
      onExitCodes: {containerName: inferd, operator: In, values: [130]}
    # Invalid arguments, which are those of all indexes.
    - action: FailJob
      onExitCodes: {containerName: inferd, operator: In, values: [2]}
    # Rows without an answer, which a second try would not answer either.
    - action: FailIndex
      onExitCodes: {containerName: inferd, operator: In, values: [3]}
    {{- end }}
template:
  {{- $labels := include "inferd.merged" (list .Values.podLabels $batch.podLabels) | fromYaml }}
  {{- $annotations := include "inferd.merged" (list .Values.podAnnotations $batch.podAnnotations) | fromYaml }}
  {{- $checksum := dict "checksum/config" (include "inferd.config" . | sha256sum) }}
  {{- $annotations = include "inferd.merged" (list $annotations $checksum) | fromYaml }}
  {{- $about := dict "root" . "labels" $labels "annotations" $annotations "identity" (include "inferd.batchLabels" .) }}
  metadata: {{- include "inferd.metadata" $about | nindent 4 }}
  spec: {{- include "inferd.withBatchValues" (dict "root" . "template" "inferd.batchPod") | nindent 4 }}
{{- end -}}

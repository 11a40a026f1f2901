{{/* The pod of the Deployment or StatefulSet. */}}

{{/* Not empty if health checks need TLS or credentials. */}}
{{- define "inferd.guardedHealth" -}}
{{- $security := dig "security" dict .Values.config | default dict -}}
{{- $closed := eq (toString (get $security "open_health")) "false" -}}
{{- if or .Values.tls.enabled (and $closed (include "inferd.authenticates" .)) }}true{{ end -}}
{{- end -}}

{{- define "inferd.probe" -}}
{{- $values := .root.Values -}}
{{- $type := $values.probes.type -}}
{{- if eq $type "auto" -}}
{{- $type = ternary "http" "grpc" (or (eq .name "liveness") (eq (include "inferd.guardedHealth" .root) "true")) -}}
{{- end -}}
{{- $probe := deepCopy (get $values.probes .name) -}}
{{- if eq $type "http" -}}
{{- $scheme := ternary "HTTPS" "HTTP" (eq (include "inferd.metricsTls" .root) "true") -}}
{{- $path := ternary "/livez" "/readyz" (eq .name "liveness") -}}
{{- $_ := set $probe "httpGet" (dict "path" $path "port" "metrics" "scheme" $scheme) -}}
{{- else -}}
{{- $_ := set $probe "grpc" (dict "port" $values.ports.grpc "service" .name) -}}
{{- end -}}
{{ toYaml $probe }}
{{- end -}}

{{- define "inferd.gpuResource" -}}
{{- if .Values.gpu.migProfile }}{{ printf "nvidia.com/mig-%s" .Values.gpu.migProfile }}{{ else }}{{ .Values.gpu.resource }}{{ end -}}
{{- end -}}

{{- define "inferd.resources" -}}
{{- $resources := deepCopy (.Values.resources | default dict) -}}
{{- if .Values.gpu.count -}}
{{- $limits := get $resources "limits" | default dict -}}
{{- $_ := set $limits (include "inferd.gpuResource" .) .Values.gpu.count -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{ toYaml $resources }}
{{- end -}}

{{- define "inferd.tolerations" -}}
{{- $tolerations := .Values.tolerations -}}
{{- if .Values.gpu.count -}}
{{- $tolerations = append $tolerations (dict "key" "nvidia.com/gpu" "operator" "Exists" "effect" "NoSchedule") -}}
{{- end -}}
{{- with uniq $tolerations }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/* The environment that the chart sets, and extraEnv must not. */}}
{{- define "inferd.ownEnvironment" -}}
{{- if include "inferd.traces" . }}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: INFERD_TRACING__RESOURCE
  value: '{"k8s.pod.name": "$(POD_NAME)", "k8s.namespace.name": "$(POD_NAMESPACE)", "k8s.node.name": "$(NODE_NAME)"}'
{{- end }}
{{- with .Values.models.remote.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "inferd.ownMounts" -}}
- {name: config, mountPath: /etc/inferd/config, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if .Values.auth.tokens.existingSecret }}
- {name: tokens, mountPath: /etc/inferd/tokens, readOnly: true}
{{- end }}
{{- if .Values.auth.policy }}
- {name: policy, mountPath: /etc/inferd/policy, readOnly: true}
{{- end }}
{{- if .Values.auth.jwks.existingConfigMap }}
- {name: jwks, mountPath: /etc/inferd/jwks, readOnly: true}
{{- end }}
{{- if .Values.tls.enabled }}
- {name: tls, mountPath: /etc/inferd/tls, readOnly: true}
{{- end }}
{{- if eq .Values.tls.clientCertificates "required" }}
- {name: client-ca, mountPath: /etc/inferd/client-ca, readOnly: true}
{{- end }}
{{- with .Values.models.persistentVolumeClaim }}
{{- if .claimName }}
- name: model-volume
  mountPath: /models/volume
  readOnly: true
  {{- with .subPath }}
  subPath: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}
{{- if .Values.models.fetch.image }}
- {name: fetched-models, mountPath: /models/fetched, readOnly: true}
{{- end }}
{{- if .Values.models.image.reference }}
- {name: model-image, mountPath: /models/image, readOnly: true}
{{- end }}
{{- with include "inferd.remembers" . }}
- {name: {{ . | quote }}, mountPath: /var/lib/inferd}
{{- end }}
{{- with include "inferd.caches" . }}
- {name: {{ . | quote }}, mountPath: /var/cache/inferd}
{{- end }}
{{- end -}}

{{/* Files of whole volumes, never of subPath, so that the server sees changes. */}}
{{- define "inferd.ownVolumes" -}}
- name: config
  configMap: {name: {{ include "inferd.fullname" . }}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- with .Values.auth.tokens }}
{{- if .existingSecret }}
- name: tokens
  secret:
    secretName: {{ .existingSecret | quote }}
    defaultMode: 0440
    items: [{key: {{ .key | quote }}, path: tokens.yaml}]
{{- end }}
{{- end }}
{{- if .Values.auth.policy }}
- name: policy
  configMap: {name: {{ include "inferd.policyName" . }}}
{{- end }}
{{- with .Values.auth.jwks }}
{{- if .existingConfigMap }}
- name: jwks
  configMap:
    name: {{ .existingConfigMap | quote }}
    items: [{key: {{ .key | quote }}, path: jwks.json}]
{{- end }}
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ include "inferd.tlsSecret" . }}
    defaultMode: 0440
    items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
{{- end }}
{{- if eq .Values.tls.clientCertificates "required" }}
- name: client-ca
  secret:
    secretName: {{ default (include "inferd.tlsSecret" .) .Values.tls.clientCa.existingSecret }}
    items: [{key: {{ .Values.tls.clientCa.key | quote }}, path: ca.crt}]
{{- end }}
{{- with .Values.models.persistentVolumeClaim.claimName }}
- name: model-volume
  persistentVolumeClaim: {claimName: {{ . | quote }}, readOnly: true}
{{- end }}
{{- if .Values.models.fetch.image }}
- name: fetched-models
  emptyDir: {sizeLimit: {{ .Values.models.fetch.sizeLimit }}}
{{- end }}
{{- with .Values.models.image }}
{{- if .reference }}
- name: model-image
  image: {reference: {{ .reference | quote }}, pullPolicy: {{ .pullPolicy }}}
{{- end }}
{{- end }}
{{- if eq (include "inferd.caches" .) "models-cache" }}
{{- $volume := .Values.models.cache.volume | default (dict "emptyDir" (dict "sizeLimit" .Values.models.cache.size)) }}
- {{ mergeOverwrite (deepCopy $volume) (dict "name" "models-cache") | toJson }}
{{- end }}
{{- if eq (include "inferd.remembers" .) "models-state" }}
- {{ mergeOverwrite (deepCopy .Values.models.control.remember.volume) (dict "name" "models-state") | toJson }}
{{- end }}
{{- end -}}

{{- define "inferd.initContainers" -}}
{{- with .Values.models.fetch }}
{{- if .image }}
- name: fetch-models
  image: {{ .image | quote }}
  {{- with .command }}
  command: {{ toJson . }}
  {{- end }}
  {{- with .args }}
  args: {{ toJson . }}
  {{- end }}
  {{- with .env }}
  env: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .envFrom }}
  envFrom: {{- toYaml . | nindent 4 }}
  {{- end }}
  resources: {{- toYaml .resources | nindent 4 }}
  securityContext: {{- toYaml $.Values.securityContext | nindent 4 }}
  volumeMounts:
    - {name: fetched-models, mountPath: /models/fetched}
    - {name: tmp, mountPath: /tmp}
{{- end }}
{{- end }}
{{- with .Values.extraInitContainers }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "inferd.spread" -}}
{{- $rules := dict "kubernetes.io/hostname" .Values.topologySpread.hosts "topology.kubernetes.io/zone" .Values.topologySpread.zones -}}
{{- range $key, $what := $rules }}
{{- if $what }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: {{ $what }}
  labelSelector:
    matchLabels: {{- include "inferd.selectorLabels" $ | nindent 6 }}
  {{- if eq $.Values.kind "Deployment" }}
  matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "inferd.container" -}}
name: inferd
image: {{ include "inferd.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [inferd]
{{- /* As an argument, because the image's environment sets a host, which takes precedence over the file. */}}
args: {{ concat (list "serve" "--config" "/etc/inferd/config/inferd.yaml" "--host" (include "inferd.host" .)) .Values.extraArgs | toJson }}
{{- with concat (include "inferd.ownEnvironment" . | fromYamlArray) .Values.extraEnv }}
env: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat .Values.models.remote.envFrom .Values.extraEnvFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - {name: grpc, containerPort: {{ .Values.ports.grpc }}}
  {{- if .Values.http.enabled }}
  - {name: http, containerPort: {{ .Values.ports.http }}}
  {{- end }}
  - {name: metrics, containerPort: {{ .Values.ports.metrics }}}
startupProbe: {{- include "inferd.probe" (dict "root" . "name" "startup") | nindent 2 }}
readinessProbe: {{- include "inferd.probe" (dict "root" . "name" "readiness") | nindent 2 }}
livenessProbe: {{- include "inferd.probe" (dict "root" . "name" "liveness") | nindent 2 }}
{{- with .Values.drain.preStopSeconds }}
lifecycle: {preStop: {sleep: {seconds: {{ . }}}}}
{{- end }}
resources: {{- include "inferd.resources" . | nindent 2 }}
securityContext: {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  {{- include "inferd.ownMounts" . | nindent 2 }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Shared by the server's pods and the test pod: account, scheduling and DNS. */}}
{{- define "inferd.everyPod" -}}
serviceAccountName: {{ include "inferd.serviceAccountName" . | quote }}
# Variables with the addresses of Services would look like settings.
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range uniq . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with include "inferd.tolerations" . }}
tolerations: {{- . | nindent 2 }}
{{- end }}
{{- range $name := list "nodeSelector" "priorityClassName" "schedulerName" "dnsPolicy" "dnsConfig" "hostAliases" }}
{{- with get $.Values $name }}
{{ dict $name . | toYaml }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "inferd.pod" -}}
{{- $checksum := dict "checksum/config" (include "inferd.config" . | sha256sum) -}}
{{- $annotations := include "inferd.merged" (list .Values.podAnnotations $checksum) | fromYaml -}}
metadata: {{- include "inferd.metadata" (dict "root" . "labels" .Values.podLabels "annotations" $annotations) | nindent 2 }}
spec:
  {{- include "inferd.everyPod" . | nindent 2 }}
  automountServiceAccountToken: {{ .Values.serviceAccount.automountToken }}
  terminationGracePeriodSeconds: {{ add .Values.drain.preStopSeconds .Values.drain.delaySeconds .Values.drain.graceSeconds 10 }}
  {{- with include "inferd.initContainers" . | trim }}
  initContainers: {{- . | nindent 4 }}
  {{- end }}
  containers:
    - {{- include "inferd.container" . | nindent 6 }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "inferd.ownVolumes" . | nindent 4 }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "inferd.spread" . | trim }}
  topologySpreadConstraints: {{- . | nindent 4 }}
  {{- end }}
  {{- with .Values.gpu.runtimeClassName }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
{{- end -}}

{{/* Checks of the values of models. */}}

{{- define "inferd.validateModels" -}}
{{- $control := .Values.models.control -}}
{{- $remember := $control.remember -}}
{{- $explicit := dict "load" $control.load "remember.volume" $remember.volume "remember.claimTemplate" $remember.claimTemplate -}}
{{- range $name, $value := $explicit -}}
{{- if and $value (ne $control.mode "explicit") -}}
{{- fail (printf "models.control.%s: expected models.control.mode explicit beside it, got %s" $name $control.mode) -}}
{{- end -}}
{{- end -}}
{{- if and $remember.volume $remember.claimTemplate -}}
{{- fail "models.control.remember: expected either volume or claimTemplate, got both" -}}
{{- end -}}
{{- $templates := list -}}
{{- range .Values.volumeClaimTemplates }}{{ $templates = append $templates (dig "metadata" "name" "" .) }}{{ end -}}
{{- if and $remember.claimTemplate (not (has $remember.claimTemplate $templates)) -}}
{{- fail (printf "models.control.remember.claimTemplate: expected the name of one of volumeClaimTemplates, got %s" $remember.claimTemplate) -}}
{{- end -}}
{{- $cache := .Values.models.cache -}}
{{- if and $cache.volume $cache.claimTemplate -}}
{{- fail "models.cache: expected either volume or claimTemplate, got both" -}}
{{- end -}}
{{- if and $cache.claimTemplate (not (has $cache.claimTemplate $templates)) -}}
{{- fail (printf "models.cache.claimTemplate: expected the name of one of volumeClaimTemplates, got %s" $cache.claimTemplate) -}}
{{- end -}}
{{- $several := or .Values.autoscaling.mode (gt (int .Values.replicas) 1) -}}
{{- if and (hasKey $remember.volume "persistentVolumeClaim") $several -}}
{{- fail "models.control.remember.volume: a claim is for a single replica, set replicas to 1 and no autoscaling, or use claimTemplate with a StatefulSet" -}}
{{- end -}}
{{- end -}}

{{- define "resumable.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "resumable.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 55 | trimSuffix "-" }}
{{- else if contains (include "resumable.name" .) .Release.Name }}
{{- .Release.Name | trunc 55 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "resumable.name" .) | trunc 55 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "resumable.selector" -}}
app.kubernetes.io/name: {{ include "resumable.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "resumable.labels" -}}
{{ include "resumable.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "resumable.claim" -}}
{{- .Values.storage.existingClaim | default (printf "%s-uploads" (include "resumable.fullname" .)) }}
{{- end }}

{{- define "resumable.basePath" -}}
{{- printf "/%s" (index .Values.settings "base-path" | default "/files/" | trimAll "/") }}
{{- end }}

{{- /* Whether there may be more than one pod: "true" or nothing. */ -}}
{{- define "resumable.several" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}true{{ end }}
{{- end }}

{{- /* The server ends within twice --shutdown-timeout, 5 s for events under way and 10 s for its workers to end; 5 s more
       are for the disk. */ -}}
{{- define "resumable.gracePeriod" -}}
{{- add (int .Values.preStopSeconds) (mul 2 (int .Values.shutdownTimeout)) 20 }}
{{- end }}

{{- /* What no schema can say. */ -}}
{{- define "resumable.check" -}}
{{- if eq .Values.catalog "sqlite" }}
{{- if or (include "resumable.several" .) (ne (int .Values.workers) 1) }}
{{- fail "catalog: sqlite is for one process: set replicas and workers to 1 and turn autoscaling off, or use catalog: postgresql" }}
{{- end }}
{{- end }}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- fail "autoscaling.minReplicas is more than autoscaling.maxReplicas" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) }}
{{- fail "ingress.host is missing: the name under which clients find the server" }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor (not .Values.metrics.enabled) }}
{{- fail "metrics.serviceMonitor needs metrics.enabled" }}
{{- end }}
{{- $own := dict "catalog" "database" "upload-dir" "storage" "workers" "workers" "shutdown-timeout" "shutdownTimeout" "admin-listen" "metrics" }}
{{- range $option, $value := $own }}
{{- if hasKey $.Values.settings $option }}
{{- fail (printf "settings.%s: the chart sets this option itself, from the value %s" $option $value) }}
{{- end }}
{{- end }}
{{- range list "port" "listen" "run-dir" "tls-cert" "tls-key" }}
{{- if hasKey $.Values.settings . }}
{{- fail (printf "settings.%s: the pods always listen on port 8080, without TLS, and use /run/resumable; use the manifests in deploy/kubernetes to change that" .) }}
{{- end }}
{{- end }}
{{- end }}

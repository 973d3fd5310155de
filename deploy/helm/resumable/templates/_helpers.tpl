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

{{- /* Whether there is an upload directory: "true" or nothing. Without one the object store has the bytes. */ -}}
{{- define "resumable.directory" -}}
{{- if or .Values.storage.enabled (eq .Values.catalog "sqlite") }}true{{ end }}
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

{{- /* MiB of the run directory: the scratch of all workers, and a little more. */ -}}
{{- define "resumable.runMiB" -}}
{{- add (mul (int .Values.spool.scratchMiB) (int .Values.workers)) 64 }}
{{- end }}

{{- /* Scratch on the node's disk is asked for, so that the pod gets a node that has it. */ -}}
{{- define "resumable.resources" -}}
{{- $resources := deepCopy .Values.resources }}
{{- if not (or (include "resumable.directory" .) .Values.spool.scratchMedium) }}
{{- $scratch := dict "ephemeral-storage" (printf "%sMi" (include "resumable.runMiB" .)) }}
{{- $_ := set $resources "requests" (merge ($resources.requests | default dict) $scratch) }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{- /* A quantity of memory in MiB, rounded down. */ -}}
{{- define "resumable.MiB" -}}
{{- $text := toString . }}
{{- $units := dict "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 }}
{{- $unit := get $units (regexFind "[A-Za-z]+$" $text) | default 1.0 }}
{{- divf (mulf (regexFind "^[0-9.]+([eE][+]?[0-9]+)?" $text | float64) $unit) 1048576.0 | floor | int64 }}
{{- end }}

{{- /* Seconds of a time as the server takes it: 60, 90s, 24h, 6d. */ -}}
{{- define "resumable.seconds" -}}
{{- $units := dict "m" 60.0 "h" 3600.0 "d" 86400.0 }}
{{- $unit := get $units (regexFind "[a-zA-Z]$" . | lower) | default 1.0 }}
{{- mulf (regexFind "^[0-9.]+" . | float64) $unit | int64 }}
{{- end }}

{{- /* What no schema can say. */ -}}
{{- define "resumable.check" -}}
{{- if eq .Values.catalog "sqlite" }}
{{- if or (include "resumable.several" .) (ne (int .Values.workers) 1) }}
{{- fail "catalog: sqlite is for one process: set replicas and workers to 1 and turn autoscaling off, or use catalog: postgresql" }}
{{- end }}
{{- end }}
{{- if and (include "resumable.directory" .) .Values.spool.url }}
{{- fail "spool.url is for pods without an upload directory: leave it out, or use catalog: postgresql and storage.enabled: false" }}
{{- end }}
{{- if not (or (include "resumable.directory" .) .Values.spool.url) }}
{{- fail "spool.url is missing: the object store that has the uploads (s3://bucket/prefix); or set storage.enabled for an upload directory that all pods share" }}
{{- end }}
{{- $memory := dig "limits" "memory" "" .Values.resources }}
{{- if and $memory .Values.spool.url .Values.spool.scratchMedium }}
{{- $scratch := mul (int .Values.spool.scratchMiB) (int .Values.workers) }}
{{- if lt (include "resumable.MiB" $memory | int64) (add $scratch 256) }}
{{- fail (printf "resources.limits.memory (%v) is too little for spool.scratchMedium: Memory: it must hold %d MiB of scratch and 256 MiB for the server; raise it, or lower spool.scratchMiB" $memory $scratch) }}
{{- end }}
{{- end }}
{{- if hasPrefix "az://" .Values.spool.url }}
{{- $expires := index .Values.settings "expire-after" | default "7d" | toString }}
{{- if or (not (regexMatch "^[0-9.]+[smhdSMHD]?$" $expires)) (gt (include "resumable.seconds" $expires | int64) 518400) (eq (include "resumable.seconds" $expires | int64) 0) }}
{{- fail "spool.url: az:// needs settings.expire-after of 6d or less, because Azure drops the bytes of unfinished uploads after 7 days" }}
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
{{- $own := dict "catalog" "database" "upload-dir" "storage" "spool" "spool" "scratch-size" "spool" "workers" "workers" "shutdown-timeout" "shutdownTimeout" "admin-listen" "metrics" }}
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

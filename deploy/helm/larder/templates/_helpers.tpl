{{- define "larder.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 36 | trimSuffix "-" }}
{{- end }}

{{/* The prefix of all names. With "-<zone>" it fits a StatefulSet, whose limit is 52 characters. */}}
{{- define "larder.fullname" -}}
{{- $name := include "larder.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 36 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 36 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 36 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "larder.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "larder.selectorLabels" -}}
app.kubernetes.io/name: {{ include "larder.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "larder.labels" -}}
{{- $own := fromYaml (include "larder.selectorLabels" .) }}
{{- $own = merge $own (dict
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_")
  "app.kubernetes.io/version" (.Chart.AppVersion | toString)
  "app.kubernetes.io/managed-by" .Release.Service) }}
{{- toYaml (merge $own .Values.commonLabels) }}
{{- end }}

{{- define "larder.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "larder.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "larder.image" -}}
{{- $image := .Values.image }}
{{- $name := required "image.repository: no image of larder is published yet; build one with `make image`, push it to your registry and give its name" $image.repository }}
{{- if $image.registry }}{{ $name = printf "%s/%s" $image.registry $name }}{{ end }}
{{- if $image.digest }}
{{- printf "%s@%s" $name $image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{- define "larder.objstoreSecret" -}}
{{- if .Values.objectStorageConfig.config }}
{{- include "larder.fullname" . }}-objstore
{{- else }}
{{- .Values.objectStorageConfig.name }}
{{- end }}
{{- end }}

{{/* The shards, their former number (0 = no resize), and the pods of a zone. */}}
{{- define "larder.shards" -}}
{{- ternary (int .Values.sharded.hashPartitioning.shards) 1 .Values.sharded.enabled }}
{{- end }}
{{- define "larder.previousShards" -}}
{{- ternary (int .Values.sharded.hashPartitioning.previousShards) 0 .Values.sharded.enabled }}
{{- end }}
{{- define "larder.ordinals" -}}
{{- max (include "larder.shards" . | int) (include "larder.previousShards" . | int) }}
{{- end }}

{{/* The groups that Queriers ask. */}}
{{- define "larder.groups" -}}
{{- default (include "larder.ordinals" .) .Values.endpointConfig.groups | int }}
{{- end }}

{{- define "larder.terminationGrace" -}}
{{- $least := add (int .Values.drainDelaySeconds) (int .Values.gracePeriodSeconds) }}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds }}
{{- add $least 20 }}
{{- else }}
{{- int .Values.terminationGracePeriodSeconds }}
{{- end }}
{{- end }}

{{/* The size of the disk cache in MiB: a part of the volume, whose size is a Kubernetes quantity. */}}
{{- define "larder.diskCacheMiB" -}}
{{- $size := .Values.persistence.size }}
{{- $unit := regexReplaceAll "^[0-9.]+" $size "" }}
{{- $mib := dict "Ki" 0.0009765625 "Mi" 1.0 "Gi" 1024.0 "Ti" 1048576.0 "Pi" 1073741824.0 "k" 0.00095367 "K" 0.00095367 "M" 0.95367 "G" 953.67 "T" 953674.0 "P" 953674316.0 }}
{{- if not (hasKey $mib $unit) }}
{{- fail (printf "persistence.size: give a unit such as Gi, so that diskCache can take a part of it; it is %q" $size) }}
{{- end }}
{{- mulf (trimSuffix $unit $size | float64) (get $mib $unit) (divf .Values.diskCache.percent 100) | floor | int64 }}
{{- end }}

{{/* The arguments that the chart sets, as a list. */}}
{{- define "larder.args" -}}
- --log.level={{ .Values.log.level }}
- --log.format={{ .Values.log.format }}
- --grpc-address=0.0.0.0:{{ int .Values.service.grpcPort }}
- --http-address=0.0.0.0:{{ int .Values.service.httpPort }}
- --data-dir=/var/larder
- --objstore.config-file=/etc/larder/objstore/objstore.yml
- --drain-delay={{ int .Values.drainDelaySeconds }}s
- --grpc-grace-period={{ int .Values.gracePeriodSeconds }}s
- --http-grace-period={{ int .Values.gracePeriodSeconds }}s
{{- if .Values.diskCache.enabled }}
- --disk-cache-size={{ include "larder.diskCacheMiB" . }}MB
{{- if not .Values.diskCache.prefetch }}
- --disk-cache.prefetch-bytes=0
{{- end }}
{{- end }}
{{- with .Values.minTime }}
- --min-time={{ . }}
{{- end }}
{{- with .Values.maxTime }}
- --max-time={{ . }}
{{- end }}
{{- if .Values.indexCacheConfig }}
- --index-cache.config-file=/etc/larder/caches/index-cache.yaml
{{- end }}
{{- if .Values.cachingBucketConfig }}
- --store.caching-bucket.config-file=/etc/larder/caches/caching-bucket.yaml
{{- end }}
{{- if .Values.latencyBudgets }}
- --latency-budgets-file=/etc/larder/budgets/budgets.yaml
{{- end }}
{{- with .Values.grpcServerTlsConfig }}
- --grpc-server-tls-cert=/etc/larder/grpc-tls/tls.crt
- --grpc-server-tls-key=/etc/larder/grpc-tls/tls.key
{{- if .ca }}
- --grpc-server-tls-client-ca=/etc/larder/grpc-tls/ca.crt
{{- end }}
{{- end }}
{{- if .Values.httpConfig.name }}
- --http.config=/etc/larder/http/web-config.yml
{{- end }}
{{- include "larder.shardArgs" . }}
{{- end }}

{{/* The source of a file: {secret: {name, key}} or {configMap: {name, key}}, as a projection. */}}
{{- define "larder.projection" -}}
{{- $path := .path }}
{{- range $kind, $source := .source }}
- {{ $kind }}:
    name: {{ $source.name }}
    items:
      - key: {{ $source.key }}
        path: {{ $path }}
{{- end }}
{{- end }}

{{- define "larder.monitorSelector" -}}
{{- default (printf "job=%q,namespace=%q" (printf "%s-peers" (include "larder.fullname" .)) (include "larder.namespace" .)) .Values.rules.selector }}
{{- end }}

{{/*
How a pod learns which blocks are its own. Only this file and configmap-shards.yaml know.

Today each ordinal has a file of relabelling rules in one ConfigMap, mounted as a folder, and the
environment variable LARDER_ORDINAL, from a label of the pod, names the file. larder watches it.
*/}}
{{- define "larder.shardEnv" -}}
{{- if .Values.sharded.enabled -}}
- name: LARDER_ORDINAL
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['apps.kubernetes.io/pod-index']
{{- end }}
{{- end }}

{{- define "larder.shardArgs" -}}
{{- if .Values.sharded.enabled }}
- --selector.relabel-config-file=/etc/larder/shards/shard-$(LARDER_ORDINAL).yaml
{{- end }}
{{- end }}

{{- define "larder.shardVolume" -}}
{{- if .Values.sharded.enabled -}}
- name: shards
  configMap:
    name: {{ include "larder.fullname" . }}-shards
{{- end }}
{{- end }}

{{- define "larder.shardVolumeMount" -}}
{{- if .Values.sharded.enabled -}}
- name: shards
  mountPath: /etc/larder/shards
  readOnly: true
{{- end }}
{{- end }}

{{/*
The rules of one ordinal. During a resize it keeps a block that is its own in the old or in the new
number of shards. An ordinal that exists in one of the numbers only has blocks of that one.
*/}}
{{- define "larder.shardRules" -}}
{{- $root := .root }}
{{- $shards := include "larder.shards" $root | int }}
{{- $previous := include "larder.previousShards" $root | int }}
{{- with $root.Values.sharded.hashPartitioning.extraRelabelingConfigs }}
{{- toYaml . }}
{{ end }}
{{- if and $previous (ne $previous $shards) -}}
- action: hashmod
  source_labels: [__block_id]
  target_label: __tmp_previous_shard
  modulus: {{ $previous }}
- action: hashmod
  source_labels: [__block_id]
  target_label: __tmp_shard
  modulus: {{ $shards }}
- action: keep
  source_labels: [__tmp_previous_shard, __tmp_shard]
  separator: ;
  regex: {{ .ordinal }};.*|.*;{{ .ordinal }}
{{- else -}}
- action: hashmod
  source_labels: [__block_id]
  target_label: __tmp_shard
  modulus: {{ $shards }}
- action: keep
  source_labels: [__tmp_shard]
  regex: {{ .ordinal }}
{{- end }}
{{- end }}

{{/*
How a pod learns which blocks are its own. Only this file and configmap-shards.yaml know. larder
watches the files of one ConfigMap, which is mounted as a folder. The ordinal and the zone are labels
of the pod.

With type larder, all pods read one file with the number of shards. With type hashmod, each ordinal
has a file of relabelling rules, which the environment variable LARDER_ORDINAL names.
*/}}
{{- define "larder.ownShards" -}}
{{- if and .Values.sharded.enabled (eq .Values.sharded.type "larder") }}true{{ end }}
{{- end }}

{{- define "larder.shardEnv" -}}
{{- if .Values.sharded.enabled -}}
- name: LARDER_ORDINAL
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['apps.kubernetes.io/pod-index']
{{- if include "larder.ownShards" . }}
- name: LARDER_ZONE
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['larder/zone']
{{- end }}
{{- end }}
{{- end }}

{{- define "larder.shardArgs" -}}
{{- $v := .Values }}
{{- if include "larder.ownShards" . }}
- --shard.config-file=/etc/larder/shards/shards.yaml
- --shard.ordinal=$(LARDER_ORDINAL)
- --shard.zone=$(LARDER_ZONE)
- --shard.peers={{ ternary "https" "http" $v.httpConfig.tls }}://{{ include "larder.fullname" . }}-peers.{{ include "larder.namespace" . }}.svc.{{ $v.clusterDomain }}:{{ int $v.service.httpPort }}
- --shard.querier-wait={{ $v.sharded.querierWait }}
- --shard.start-wait={{ $v.sharded.startWait }}
{{- if $v.sharded.peersConfig.name }}
- --shard.peers-config-file=/etc/larder/shard-peers/peers.yml
{{- end }}
{{- if $v.sharded.hashPartitioning.extraRelabelingConfigs }}
- --selector.relabel-config-file=/etc/larder/shards/relabel.yaml
{{- end }}
{{- else if $v.sharded.enabled }}
- --selector.relabel-config-file=/etc/larder/shards/shard-$(LARDER_ORDINAL).yaml
{{- end }}
{{- end }}

{{- define "larder.shardVolume" -}}
{{- if .Values.sharded.enabled -}}
- name: shards
  configMap:
    name: {{ include "larder.fullname" . }}-shards
{{- if and (include "larder.ownShards" .) .Values.sharded.peersConfig.name }}
- name: shard-peers
  secret:
    secretName: {{ .Values.sharded.peersConfig.name }}
    items:
      - key: {{ .Values.sharded.peersConfig.key }}
        path: peers.yml
{{- end }}
{{- end }}
{{- end }}

{{- define "larder.shardVolumeMount" -}}
{{- if .Values.sharded.enabled -}}
- name: shards
  mountPath: /etc/larder/shards
  readOnly: true
{{- if and (include "larder.ownShards" .) .Values.sharded.peersConfig.name }}
- name: shard-peers
  mountPath: /etc/larder/shard-peers
  readOnly: true
{{- end }}
{{- end }}
{{- end }}

{{/*
The file of type larder. The name of the cluster keeps pods of other releases on the same bucket from
being taken for peers, where an address was theirs.
*/}}
{{- define "larder.shardConfig" -}}
{{- $zones := list }}
{{- range .Values.zones }}
{{- $zones = append $zones .name }}
{{- end -}}
epoch: {{ int .Values.sharded.epoch }}
count: {{ include "larder.shards" . }}
zones: {{ sortAlpha $zones | toJson }}
cluster: {{ printf "%s/%s" (include "larder.namespace" .) (include "larder.fullname" .) }}
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

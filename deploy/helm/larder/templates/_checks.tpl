{{/* What a schema cannot express. Each check fails with the name of the value and the way out. */}}
{{- define "larder.checks" -}}
{{- $v := .Values }}

{{- if and $v.objectStorageConfig.name $v.objectStorageConfig.config }}
{{- fail "objectStorageConfig: give name (a Secret that you keep) or config (its content), not both" }}
{{- end }}
{{- if not (or $v.objectStorageConfig.name $v.objectStorageConfig.config) }}
{{- fail "objectStorageConfig: give name (a Secret with the bucket's configuration) or config (its content)" }}
{{- end }}

{{- $zones := list }}
{{- range $v.zones }}
{{- if has .name $zones }}
{{- fail (printf "zones: two zones are called %q" .name) }}
{{- end }}
{{- $zones = append $zones .name }}
{{- end }}

{{- if and (not $v.sharded.enabled) (gt (int $v.sharded.hashPartitioning.shards) 1) }}
{{- fail (printf "sharded.hashPartitioning.shards is %d, but sharded.enabled is false" (int $v.sharded.hashPartitioning.shards)) }}
{{- end }}
{{- if and (not $v.sharded.enabled) (or $v.sharded.hashPartitioning.extraRelabelingConfigs $v.sharded.hashPartitioning.previousShards) }}
{{- fail "sharded.hashPartitioning has values, but sharded.enabled is false" }}
{{- end }}

{{- if and (include "larder.ownShards" .) $v.httpConfig.tls (not $v.sharded.peersConfig.name) }}
{{- fail "sharded.peersConfig.name: pods ask each other over HTTPS with httpConfig.tls; give a Secret with the client configuration" }}
{{- end }}
{{- if and (not (include "larder.ownShards" .)) $v.sharded.peersConfig.name }}
{{- fail "sharded.peersConfig: has no effect without sharded.enabled and sharded.type larder" }}
{{- end }}

{{- $groups := include "larder.groups" . | int }}
{{- if or (lt $groups (include "larder.shards" . | int)) (gt $groups (include "larder.ordinals" . | int)) }}
{{- fail (printf "endpointConfig.groups: must be at least the number of shards, %s, and at most the pods of a zone, %s" (include "larder.shards" .) (include "larder.ordinals" .)) }}
{{- end }}

{{- if $v.persistence.existingClaim }}
{{- if not $v.persistence.enabled }}
{{- fail "persistence.existingClaim is set, but persistence.enabled is false" }}
{{- end }}
{{- if or (gt (len $v.zones) 1) (gt (include "larder.ordinals" . | int) 1) }}
{{- fail "persistence.existingClaim: one claim cannot be the data directory of several pods; use it with one zone and without shards, or remove it to get a claim for each pod" }}
{{- end }}
{{- end }}

{{- $least := add (int $v.drainDelaySeconds) (int $v.gracePeriodSeconds) }}
{{- if le (include "larder.terminationGrace" . | int) (int $least) }}
{{- fail (printf "terminationGracePeriodSeconds: must exceed drainDelaySeconds + gracePeriodSeconds, which is %d" (int $least)) }}
{{- end }}

{{- if and (toString $v.pdb.minAvailable) (toString $v.pdb.maxUnavailable) }}
{{- fail "pdb: give minAvailable or maxUnavailable, not both" }}
{{- end }}

{{- if eq (int $v.service.grpcPort) (int $v.service.httpPort) }}
{{- fail (printf "service: grpcPort and httpPort are both %d" (int $v.service.grpcPort)) }}
{{- end }}

{{- if and $v.httpConfig.tls (not $v.httpConfig.name) }}
{{- fail "httpConfig.tls: needs httpConfig.name, a Secret with the web configuration that enables TLS" }}
{{- end }}

{{- if and $v.rolloutOperator.enabled $v.updateStrategy }}
{{- if ne (toString $v.updateStrategy.type) "OnDelete" }}
{{- fail "updateStrategy.type: must be OnDelete or unset with rolloutOperator.enabled" }}
{{- end }}
{{- end }}

{{- with $v.grpcServerTlsConfig }}
{{- if not (and .cert .keySecret) }}
{{- fail "grpcServerTlsConfig: needs cert and keySecret; ca is optional" }}
{{- end }}
{{- end }}

{{- $flags := dict }}
{{- range fromYamlArray (include "larder.args" .) }}
{{- $_ := set $flags (regexReplaceAll "=.*$" . "") "" }}
{{- $_ := set $flags (regexReplaceAll "(-file)?=.*$" . "") "" }}
{{- end }}
{{- range $v.extraArgs }}
{{- $flag := regexReplaceAll "(?s)=.*$" . "" | trim }}
{{- if hasKey $flags $flag }}
{{- fail (printf "extraArgs: %s is set by the chart; change the value that it is made of" $flag) }}
{{- end }}
{{- end }}

{{- $names := list "LARDER_ORDINAL" "LARDER_ZONE" }}
{{- range $v.extraEnv }}
{{- if has .name $names }}
{{- fail (printf "extraEnv: %s is set twice, or by the chart" .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- end }}

{{/* The name of all objects: that of the release, with the chart's name in it. */}}
{{- define "bts.name" -}}
{{- if contains "bts-exporter" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-bts-exporter" (.Release.Name | trunc 27 | trimSuffix "-") }}{{ end }}
{{- end }}

{{/* Labels that select the pods of a component. They must not change in an upgrade. */}}
{{- define "bts.selector" -}}
app.kubernetes.io/name: bts-exporter
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .shard }}
bts-exporter/shard: {{ . | quote }}
{{- end }}
{{- end }}

{{/* The scheme of the port, for Prometheus. */}}
{{- define "bts.scheme" -}}
{{- if .Values.web.secret }}https{{ else }}http{{ end }}
{{- end }}

{{/*
The shard of a target: the one whose hash with the target's name is the largest. It does not depend on other
targets, and one more shard takes targets from the others without moving any between them.
*/}}
{{- define "bts.shard" -}}
{{- $largest := "" }}{{ $shard := 0 }}
{{- range $index := until (int .shards) }}
{{- $hash := sha256sum (printf "%s/%d" $.target $index) }}
{{- if gt $hash $largest }}{{ $largest = $hash }}{{ $shard = $index }}{{ end }}
{{- end }}
{{- $shard }}
{{- end }}

{{/* Stops if a text that goes into a ConfigMap contains a password or a token. */}}
{{- define "bts.refusePasswords" -}}
{{- if or (regexMatch `(?m)^[^#\n]*(?:password|token|[Aa]uthorization)(?:["']:[ \t]*|:[ \t]+)[^!\s#]` .text) (regexMatch `://[^/@\s:]*:[^/@\s]+@` .text) }}
{{- fail (printf "%s contains a password or token, which everybody who may read ConfigMaps could see. Create a Secret and write: password: !file /run/secrets/NAME/KEY" .place) }}
{{- end }}
{{- end }}

{{/* The targets of a shard as `collectors`, empty if it has none. */}}
{{- define "bts.collectors" -}}
{{- $root := .root }}{{ $shard := .shard }}{{ $types := dict }}
{{- range $name, $target := $root.Values.brokers.targets }}
{{- include "bts.refusePasswords" (dict "place" (printf "brokers.targets.%s.settings" $name) "text" $target.settings) }}
{{- if eq (include "bts.shard" (dict "target" $name "shards" $root.Values.brokers.shards)) (toString $shard) }}
{{- $entry := printf "- name: %s\n%s" (quote $name) ($target.settings | trim | indent 2) }}
{{- $_ := set $types $target.type (append (default list (get $types $target.type)) $entry) }}
{{- end }}
{{- end }}
{{- range $type, $entries := $types }}
{{ $type }}:
{{ join "\n" $entries | indent 2 }}
{{- end }}
{{- end }}

{{/* The Secrets whose files the settings name, each once: /run/secrets/NAME/KEY. */}}
{{- define "bts.secrets" -}}
{{- range regexFindAll `/run/secrets/[a-z0-9.-]+/` . -1 | uniq }}
{{ . | trimPrefix "/run/secrets/" | trimSuffix "/" }}
{{- end }}
{{- end }}

{{/* The container of both components. `extraMounts` is YAML. */}}
{{- define "bts.container" -}}
- name: exporter
  image: {{ printf "%s:%s" .root.Values.image.repository (default .root.Chart.AppVersion .root.Values.image.tag) | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - --config.file=/etc/bts-exporter/config.yaml
    - --config.auto-reload
    - --web.listen-address=:{{ .root.Values.port }}
    {{- if .root.Values.web.secret }}
    - --web.config.file=/etc/bts-exporter-web/web.yml
    {{- end }}
    {{- with .root.Values.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - name: metrics
      containerPort: {{ .root.Values.port }}
      protocol: TCP
  {{- if .root.Values.web.secret }}
  # With a password or a client certificate all paths require it.
  readinessProbe:
    tcpSocket: {port: metrics}
  livenessProbe:
    tcpSocket: {port: metrics}
  {{- else }}
  readinessProbe:
    httpGet: {path: /-/ready, port: metrics}
    timeoutSeconds: 5
  # Three failures in a row: a restart loses what the exporter knows from earlier scrapes.
  livenessProbe:
    httpGet: {path: /-/healthy, port: metrics}
    periodSeconds: 30
    timeoutSeconds: 5
  {{- end }}
  resources:
    {{- toYaml .values.resources | nindent 4 }}
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL]}
  volumeMounts:
    # The folder, not the file: Kubernetes does not update a file that is mounted with subPath.
    - {name: config, mountPath: /etc/bts-exporter, readOnly: true}
    {{- if .root.Values.web.secret }}
    - {name: web, mountPath: /etc/bts-exporter-web, readOnly: true}
    {{- end }}
    {{- range $index, $secret := .secrets }}
    - {name: secret-{{ $index }}, mountPath: {{ printf "/run/secrets/%s" $secret | quote }}, readOnly: true}
    {{- end }}
    {{- with .extraMounts }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* The volumes of both components. */}}
{{- define "bts.volumes" -}}
- name: config
  configMap: {name: {{ .config }}}
{{- with .root.Values.web.secret }}
- name: web
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- range $index, $secret := .secrets }}
- name: secret-{{ $index }}
  secret: {secretName: {{ $secret | quote }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{/* The fields of a pod's spec that both components have. */}}
{{- define "bts.pod" -}}
serviceAccountName: {{ include "bts.name" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
# Scrapes under way are answered 1.5 s after a stop at the latest.
terminationGracePeriodSeconds: 10
securityContext:
  runAsNonRoot: true
  runAsUser: 65534
  runAsGroup: 65534
  fsGroup: 65534
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The labels of a target in Prometheus: names that stay when a pod is replaced. */}}
{{- define "bts.relabelings" -}}
# The rules and dashboards expect this job.
- {targetLabel: job, replacement: bts-exporter}
{{- if eq .component "host" }}
- {sourceLabels: [__meta_kubernetes_pod_node_name], targetLabel: instance}
{{- else }}
- {sourceLabels: [__meta_kubernetes_pod_label_bts_exporter_shard], targetLabel: instance, replacement: brokers-$1}
{{- end }}
# A new pod would otherwise start new series, and the alerts of the old ones would end.
- {action: labeldrop, regex: pod|container|endpoint}
{{- end }}

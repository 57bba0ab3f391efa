{{/* What every pod has in common. Arguments: dict "root" $ "part" name, and for containers
     "args" list "http" port's name, empty for none "port" number "scheme" HTTP|HTTPS "plain" true if it
     serves no health "volumes" "mounts" "env" */}}

{{- define "callmeter.env" -}}
- { name: CALLMETER_KAFKA, value: {{ required "kafka.url is required" .Values.kafka.url | quote }} }
- { name: CALLMETER_KAFKA_PREFIX, value: {{ .Values.kafka.prefix | quote }} }
{{- with .Values.kafka.username }}
- { name: CALLMETER_KAFKA_USERNAME, value: {{ . | quote }} }
{{- end }}
{{- with .Values.kafka.mechanism }}
- { name: CALLMETER_KAFKA_SASL_MECHANISM, value: {{ . | quote }} }
{{- end }}
{{- if .Values.kafka.passwordSecret.name }}
- name: {{ eq .Values.kafka.mechanism "OAUTHBEARER" | ternary "CALLMETER_KAFKA_TOKEN_FILE" "CALLMETER_KAFKA_PASSWORD_FILE" }}
  value: /etc/callmeter/kafka/password
{{- end }}
{{- if .Values.kafka.tlsSecret.name }}
- { name: CALLMETER_KAFKA_CA_FILE, value: /etc/callmeter/kafka-tls/ca.crt }
{{- if .Values.kafka.tlsSecret.clientCertificate }}
- { name: CALLMETER_KAFKA_CERT_FILE, value: /etc/callmeter/kafka-tls/tls.crt }
- { name: CALLMETER_KAFKA_KEY_FILE, value: /etc/callmeter/kafka-tls/tls.key }
{{- end }}
{{- end }}
- { name: CALLMETER_STORE, value: {{ required "store.url is required" .Values.store.url | quote }} }
{{- if .Values.store.passwordSecret.name }}
- { name: CALLMETER_STORE_PASSWORD_FILE, value: /etc/callmeter/store/password }
{{- end }}
- { name: HOME, value: /tmp }
{{- end }}

{{- define "callmeter.mounts" -}}
- { name: tmp, mountPath: /tmp }
{{- if .Values.kafka.passwordSecret.name }}
- { name: kafka-password, mountPath: /etc/callmeter/kafka, readOnly: true }
{{- end }}
{{- if .Values.kafka.tlsSecret.name }}
- { name: kafka-tls, mountPath: /etc/callmeter/kafka-tls, readOnly: true }
{{- end }}
{{- if .Values.store.passwordSecret.name }}
- { name: store-password, mountPath: /etc/callmeter/store, readOnly: true }
{{- end }}
{{- end }}

{{- define "callmeter.secret" -}}
secret:
  secretName: {{ .name }}
  defaultMode: 0440
  items: [{ key: {{ .key }}, path: {{ .path }} }]
{{- end }}

{{- define "callmeter.volumes" -}}
- { name: tmp, emptyDir: { sizeLimit: 256Mi } }
{{- with .Values.kafka.passwordSecret }}{{ if .name }}
- name: kafka-password
  {{- include "callmeter.secret" (dict "name" .name "key" .key "path" "password") | nindent 2 }}
{{- end }}{{ end }}
{{- with .Values.kafka.tlsSecret }}{{ if .name }}
- { name: kafka-tls, secret: { secretName: {{ .name }}, defaultMode: 0440 } }
{{- end }}{{ end }}
{{- with .Values.store.passwordSecret }}{{ if .name }}
- name: store-password
  {{- include "callmeter.secret" (dict "name" .name "key" .key "path" "password") | nindent 2 }}
{{- end }}{{ end }}
{{- end }}

{{- define "callmeter.contained" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- define "callmeter.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.podSecurity.runAsUser }}
runAsGroup: {{ .Values.podSecurity.runAsUser }}
fsGroup: {{ .Values.podSecurity.fsGroup }}
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "callmeter.placing" -}}
automountServiceAccountToken: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - { name: {{ . }} }
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Sets what "callmeter.pod" takes for a part with a key file, and https if it has a certificate.
     Arguments: dict "arguments" those of the pod "args" its command's "values" the part's */}}
{{- define "callmeter.keyed" -}}
{{- $args := .args }}
{{- $volumes := list (dict "name" "keys" "secret" (dict "secretName" .values.keysSecret.name "defaultMode" 0440 "items" (list (dict "key" .values.keysSecret.key "path" "keys.json")))) }}
{{- $mounts := list (dict "name" "keys" "mountPath" "/etc/callmeter/keys" "readOnly" true) }}
{{- if .values.tlsSecret }}
{{- $args = concat $args (list "--tls-cert" "/etc/callmeter/tls/tls.crt" "--tls-key" "/etc/callmeter/tls/tls.key") }}
{{- $volumes = append $volumes (dict "name" "tls" "secret" (dict "secretName" .values.tlsSecret "defaultMode" 0440)) }}
{{- $mounts = append $mounts (dict "name" "tls" "mountPath" "/etc/callmeter/tls" "readOnly" true) }}
{{- $_ := set .arguments "scheme" "HTTPS" }}
{{- end }}
{{- $_ := set .arguments "args" $args }}
{{- $_ := set .arguments "volumes" $volumes }}
{{- $_ := set .arguments "mounts" $mounts }}
{{- $_ := set .arguments "env" (list (dict "name" "CALLMETER_KEYS_FILE" "value" "/etc/callmeter/keys/keys.json")) }}
{{- end }}

{{/* The template of a pod that runs one callmeter command and serves health on "port". */}}
{{- define "callmeter.pod" -}}
{{- $values := index .root.Values .part -}}
metadata:
  labels:
    {{- include "callmeter.labels" . | nindent 4 }}
  {{- if and .http (not .plain) }}
  annotations:
    prometheus.io/scrape: "true"
    prometheus.io/port: {{ .port | quote }}
    prometheus.io/path: /metrics
  {{- end }}
spec:
  serviceAccountName: {{ include "callmeter.name" .root }}
  {{- include "callmeter.placing" .root | nindent 2 }}
  terminationGracePeriodSeconds: {{ $values.grace }}
  securityContext:
    {{- include "callmeter.podSecurity" .root | nindent 4 }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "callmeter.selector" . | nindent 10 }}
  containers:
    - name: {{ .part }}
      image: {{ include "callmeter.image" .root }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args:
        {{- range concat .args $values.args }}
        - {{ . | toString | quote }}
        {{- end }}
      env:
        {{- include "callmeter.env" .root | nindent 8 }}
        {{- with .env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if .http }}
      ports:
        - { name: {{ .http }}, containerPort: {{ .port }} }
      {{- end }}
      {{- if and .http .plain }}
      startupProbe: { tcpSocket: { port: {{ .http }} }, periodSeconds: 2, failureThreshold: 60 }
      livenessProbe: { tcpSocket: { port: {{ .http }} }, periodSeconds: 10, failureThreshold: 6 }
      readinessProbe: { tcpSocket: { port: {{ .http }} }, periodSeconds: 5 }
      {{- else if .http }}
      {{- $probe := dict "path" "/healthz" "port" .http "scheme" (.scheme | default "HTTP") }}
      startupProbe:
        httpGet: {{ toYaml $probe | nindent 10 }}
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: {{ toYaml $probe | nindent 10 }}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {{ toYaml (merge (dict "path" "/readyz") $probe) | nindent 10 }}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      {{- end }}
      resources: {{ toYaml $values.resources | nindent 8 }}
      securityContext:
        {{- include "callmeter.contained" . | nindent 8 }}
      volumeMounts:
        {{- include "callmeter.mounts" .root | nindent 8 }}
        {{- with .mounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- include "callmeter.volumes" .root | nindent 4 }}
    {{- with .volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* A Deployment around it. A rolling update starts a new pod before it stops an old one. */}}
{{- define "callmeter.deployment" -}}
{{- $values := index .root.Values .part -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "callmeter.metadata" . | nindent 2 }}
spec:
  {{- if not .scaled }}
  replicas: {{ $values.replicas | default 1 }}
  {{- end }}
  revisionHistoryLimit: 3
  strategy: { type: RollingUpdate, rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } }
  selector:
    matchLabels:
      {{- include "callmeter.selector" . | nindent 6 }}
  template:
    {{- include "callmeter.pod" . | nindent 4 }}
{{- end }}

{{- define "callmeter.metrics" -}}
0.0.0.0:{{ .Values.metrics.port }}
{{- end }}

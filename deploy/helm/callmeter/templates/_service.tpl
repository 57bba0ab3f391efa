{{/* Names every pod of a component, ready or not: Prometheus finds them by DNS, without rights. */}}
{{- define "callmeter.headless" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "callmeter.name" .root }}-{{ .part }}-pods
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "callmeter.labels" . | nindent 4 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    {{- include "callmeter.selector" . | nindent 4 }}
  ports:
    - { name: metrics, port: {{ .port }}, targetPort: {{ .port }} }
{{- end }}

{{/* What clients speak to. */}}
{{- define "callmeter.service" -}}
{{- $values := index .root.Values .part -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "callmeter.metadata" . | nindent 2 }}
  {{- with $values.service.annotations }}
  annotations: {{ toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ $values.service.type }}
  selector:
    {{- include "callmeter.selector" . | nindent 4 }}
  ports:
    - { name: http, port: {{ $values.port }}, targetPort: http }
{{- end }}

{{- define "callmeter.ingress" -}}
{{- $values := index .root.Values .part -}}
{{- with $values.ingress }}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  {{- include "callmeter.metadata" $ | nindent 2 }}
  {{- with .annotations }}
  annotations: {{ toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .className }}
  ingressClassName: {{ . }}
  {{- end }}
  {{- if .tlsSecret }}
  tls: [{ hosts: [{{ .host | quote }}], secretName: {{ .tlsSecret }} }]
  {{- end }}
  rules:
    - host: {{ required (printf "%s.ingress.host is required" $.part) .host | quote }}
      http:
        paths:
          - path: {{ .path }}
            pathType: Prefix
            backend: { service: { name: {{ include "callmeter.name" $.root }}-{{ $.part }}, port: { name: http } } }
{{- end }}
{{- end }}

{{- define "session-gateway.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "session-gateway.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "session-gateway.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "session-gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "session-gateway.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "session-gateway.name" .) "default") }}
{{- end }}

{{- define "session-gateway.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "session-gateway.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "session-gateway.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- /* Texts, numbers and lists are written in JSON as they are in TOML. */}}
{{- define "session-gateway.settings" -}}
{{- range $key, $value := . }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}

{{- define "session-gateway.toml" -}}
[server]
host = "0.0.0.0"
port = 8080
{{- include "session-gateway.settings" .Values.server }}

[store]
kind = "valkey"
url = {{ required "store.url: replicas share their sessions in Valkey; give its address" .Values.store.url | toJson }}
{{- include "session-gateway.settings" (omit .Values.store "url" "password" "ca" "encryptionKeys") }}
{{- if .Values.store.ca.secret }}
ca_file = "/run/session-gateway/ca/{{ .Values.store.ca.key }}"
{{- end }}
{{- if .Values.store.encryptionKeys.secret }}
encryption_key_file = "/run/session-gateway/encryption/{{ .Values.store.encryptionKeys.key }}"
{{- end }}
{{- with .Values.metrics.port }}

[metrics]
host = "0.0.0.0"
port = {{ . }}
{{- end }}
{{- if .Values.auth.keys.secret }}

[auth.keys]
file = "/run/session-gateway/keys/{{ .Values.auth.keys.key }}"
{{- end }}
{{- with .Values.auth.jwt }}

[auth.jwt]
{{- include "session-gateway.settings" . }}
{{- end }}
{{- if .Values.tls.secret }}

[tls]
cert_file = "/run/session-gateway/tls/tls.crt"
key_file = "/run/session-gateway/tls/tls.key"
{{- end }}

{{ required "config: give the gateway a route, as in gateway.toml" .Values.config }}
{{- if not (or .Values.auth.keys.secret .Values.auth.jwt) }}
{{- fail "auth: name a Secret with keys (auth.keys.secret), or give auth.jwt; without either the gateway listens on loopback only" }}
{{- end }}
{{- end }}

{{- define "slotway.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "slotway" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-slotway" (.Release.Name | trunc 42 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "slotway.selector" -}}
app.kubernetes.io/name: slotway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "slotway.labels" -}}
{{ include "slotway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Helm's whole numbers are floating ones, written as 5000.0 or 1e+06: slotway wants them whole. */}}
{{- define "slotway.whole" -}}
{{- range $key, $value := . -}}
{{- if kindIs "map" $value -}}
{{- include "slotway.whole" $value -}}
{{- else if kindIs "float64" $value -}}
{{- if eq $value (floor $value) -}}
{{- $_ := set $ $key (int64 $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* proxy.toml: what this chart decides, and the rest of `config`. */}}
{{- define "slotway.config" -}}
{{- $own := dict
      "listen" (list "0.0.0.0:6379")
      "admin" "0.0.0.0:9121"
      "seeds" .Values.seeds
      "workers" (int .Values.workers)
      "protected_mode" (ne .Values.users.existingSecret "")
      "timeouts" (dict "drain" (printf "%ds" (int .Values.shutdown.drainSeconds))) -}}
{{- $tls := dict -}}
{{- if .Values.tls.existingSecret -}}
{{- $downstream := dict
      "listen" (list "0.0.0.0:6380")
      "cert" "/etc/slotway-tls/tls.crt"
      "key" "/etc/slotway-tls/tls.key" -}}
{{- with .Values.tls.clientCAKey -}}
{{- $_ := set $downstream "client_ca" (printf "/etc/slotway-tls/%s" .) -}}
{{- $_ := set $downstream "client_auth" "required" -}}
{{- end -}}
{{- $_ := set $tls "downstream" $downstream -}}
{{- end -}}
{{- if .Values.upstream.tls.enabled -}}
{{- $upstream := dict "enabled" true "ca" "/etc/slotway-upstream-tls/ca.crt" -}}
{{- if .Values.upstream.tls.clientCertificate -}}
{{- $_ := set $upstream "cert" "/etc/slotway-upstream-tls/tls.crt" -}}
{{- $_ := set $upstream "key" "/etc/slotway-upstream-tls/tls.key" -}}
{{- end -}}
{{- $_ := set $tls "upstream" $upstream -}}
{{- end -}}
{{- if $tls -}}
{{- $_ := set $own "tls" $tls -}}
{{- end -}}
{{- $all := mergeOverwrite (deepCopy .Values.config) $own -}}
{{- include "slotway.whole" $all -}}
{{- toToml $all -}}
{{- end -}}

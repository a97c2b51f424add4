{{- define "consentry.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "consentry.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "consentry.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "consentry.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "consentry.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- define "consentry.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "consentry.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* What every object has. Takes (dict "root" $ "door" "smtp"); door may be empty. */}}
{{- define "consentry.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "consentry.selector" . }}
{{- end }}

{{- define "consentry.selector" -}}
app.kubernetes.io/name: {{ include "consentry.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .door }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- /* StatefulSet or Deployment. */}}
{{- define "consentry.kind" -}}
{{- $door := index .root.Values .door }}
{{- if $door.kind }}{{ $door.kind }}{{ else if eq .root.Values.store.kind "postgresql" }}Deployment{{ else }}StatefulSet{{ end }}
{{- end }}

{{- /* TOML. Numbers of values files are floats to Helm; those of the configuration are whole, or have a fraction. */}}
{{- define "consentry.toml.value" -}}
{{- if kindIs "map" . -}}
{ {{- range $i, $key := keys . | sortAlpha }}{{ if $i }}, {{ end }}{{ $key | toRawJson }} = {{ include "consentry.toml.value" (get $ $key) }}{{ end -}} }
{{- else if kindIs "slice" . -}}
[{{ range $i, $one := . }}{{ if $i }}, {{ end }}{{ include "consentry.toml.value" $one }}{{ end }}]
{{- else if kindIs "float64" . -}}
{{ if eq (floor .) . }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- else -}}
{{ . | toRawJson }}
{{- end }}
{{- end }}

{{- define "consentry.toml.table" -}}
{{- range $key := keys . | sortAlpha }}
{{ $key }} = {{ include "consentry.toml.value" (get $ $key) }}
{{- end }}
{{- end }}

{{- define "consentry.toml" -}}
{{- $document := . }}
{{- range $key := keys . | sortAlpha }}
{{- $value := get $document $key }}
{{- if not (or (kindIs "map" $value) (eq $key "stream")) }}
{{ $key }} = {{ include "consentry.toml.value" $value }}
{{- end }}
{{- end }}
{{- range $key := keys . | sortAlpha }}
{{- $value := get $document $key }}
{{- if kindIs "map" $value }}

[{{ $key }}]
{{- include "consentry.toml.table" $value }}
{{- end }}
{{- end }}
{{- range (get . "stream") }}

[[stream]]
{{- include "consentry.toml.table" . }}
{{- end }}
{{- end }}

{{- /* Secrets of one door: for each its place below /run/secrets/consentry, its setting, its Secret and key. JSON. */}}
{{- define "consentry.secrets" -}}
{{- $secrets := .root.Values.secrets }}
{{- $found := list }}
{{- $one := list
  (dict "at" "subject.key" "section" "consent" "setting" "key_file" "from" $secrets.subjectKey "doors" (list "smtp" "kafka"))
  (dict "at" "hold.key" "section" "hold" "setting" "key_file" "from" $secrets.holdKey "doors" (list "smtp" "kafka"))
  (dict "at" "store.password" "section" "store" "setting" "password_file" "from" $secrets.storePassword "doors" (list "smtp" "kafka"))
  (dict "at" "next-hop.password" "section" "next_hop" "setting" "password_file" "from" $secrets.nextHopPassword "doors" (list "smtp" "kafka"))
  (dict "at" "users" "section" "smtp" "setting" "users_file" "from" $secrets.users "doors" (list "smtp"))
  (dict "at" "kafka.password" "section" "kafka" "setting" "password_file" "from" $secrets.kafkaPassword "doors" (list "smtp" "kafka"))
  (dict "at" "tls.crt" "section" "smtp" "setting" "tls_cert_file" "from" (dict "name" $secrets.tls.name "key" "tls.crt") "doors" (list "smtp"))
  (dict "at" "tls.key" "section" "smtp" "setting" "tls_key_file" "from" (dict "name" $secrets.tls.name "key" "tls.key") "doors" (list "smtp"))
  (dict "at" "kafka.crt" "section" "kafka" "setting" "tls_cert_file" "from" (dict "name" $secrets.kafkaTls.name "key" "tls.crt") "doors" (list "smtp" "kafka"))
  (dict "at" "kafka.key" "section" "kafka" "setting" "tls_key_file" "from" (dict "name" $secrets.kafkaTls.name "key" "tls.key") "doors" (list "smtp" "kafka"))
}}
{{- range $one }}
{{- if and .from.name (has $.door .doors) }}{{ $found = append $found . }}{{ end }}
{{- end }}
{{- toRawJson $found }}
{{- end }}

{{- /* The configuration of one door: both doors', its own, and what only the chart can know. JSON. */}}
{{- define "consentry.config" -}}
{{- $values := .root.Values }}
{{- $config := mustMergeOverwrite (deepCopy $values.config) (deepCopy (index $values .door).config) }}
{{- $brokers := dig "kafka" "bootstrap_servers" list $config }}
{{- $ours := dict "store" (dict "dir" "/var/lib/consentry/store") }}
{{- if eq .door "smtp" }}
{{- $_ := set $ours "smtp" (dict "listen" (list (printf "%s:2625" $values.smtp.listen))) }}
{{- if $values.smtp.implicitTls }}
{{- if not $values.secrets.tls.name }}{{ fail "smtp.implicitTls needs secrets.tls.name" }}{{ end }}
{{- $_ := set $ours.smtp "tls_listen" (list (printf "%s:2465" $values.smtp.listen)) }}
{{- end }}
{{- if $brokers }}{{ $_ := set $ours "kafka" (dict "topic" "") }}{{ end }}
{{- else }}
{{- if not $brokers }}{{ fail "kafka.enabled needs config.kafka.bootstrap_servers" }}{{ end }}
{{- $_ := set $ours "smtp" (dict "listen" list) }}
{{- end }}
{{- $_ := set $ours "http" (dict "listen" (printf "%s:9625" $values.smtp.listen)) }}
{{- if eq $values.store.kind "postgresql" }}
{{- $url := index $values.store.urls .door }}
{{- if not $url }}{{ fail (printf "store.kind postgresql needs store.urls.%s" .door) }}{{ end }}
{{- if and $values.smtp.enabled $values.kafka.enabled (eq $values.store.urls.smtp $values.store.urls.kafka) }}
{{- fail "store.urls.smtp and store.urls.kafka must be two databases: pods of the SMTP door cannot deliver what the Kafka door held" }}
{{- end }}
{{- if not (and $values.secrets.holdKey.name $values.secrets.subjectKey.name) }}
{{- fail "store.kind postgresql needs secrets.holdKey.name and secrets.subjectKey.name: no pod of several makes keys by itself" }}
{{- end }}
{{- $_ := set $ours.store "url" $url }}
{{- else if eq (include "consentry.kind" .) "Deployment" }}
{{- fail (printf "%s.kind Deployment needs store.kind postgresql: held mail in SQLite needs a volume that outlives its pod" .door) }}
{{- end }}
{{- range (include "consentry.secrets" . | fromJsonArray) }}
{{- $section := get $ours .section | default dict }}
{{- $_ := set $section .setting (printf "/run/secrets/consentry/%s" .at) }}
{{- $_ := set $ours .section $section }}
{{- end }}
{{- range $name, $section := dict "nextHop" "next_hop" "kafka" "kafka" }}
{{- if (index $values.authorities $name).name }}
{{- $table := get $ours $section | default dict }}
{{- $_ := set $table "tls_ca_file" (printf "/etc/consentry-authorities/%s.crt" $section) }}
{{- $_ := set $ours $section $table }}
{{- end }}
{{- end }}
{{- mustMergeOverwrite $config $ours | toRawJson }}
{{- end }}

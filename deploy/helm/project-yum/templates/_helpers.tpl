{{- define "yum.labels" -}}
app.kubernetes.io/name: project-yum
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "yum.selector" -}}
app.kubernetes.io/name: project-yum
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

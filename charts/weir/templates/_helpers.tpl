{{/*
Names are fixed: sidecars dial the allocator by its name, the allocator knows its Lease, its Secret and
its webhooks by theirs, and two allocators that know nothing of each other would hand out one budget
twice. There is one Weir in a cluster.
*/}}
{{- define "weir.name" -}}
weir
{{- end }}

{{- define "weir.allocator.name" -}}
weir-allocator
{{- end }}

{{- define "weir.webhook.name" -}}
weir-webhook
{{- end }}

{{/* The Secret that cert-manager writes. The allocator's own is weir-ca, and no part of the chart. */}}
{{- define "weir.certificate.secret" -}}
weir-certificate
{{- end }}

{{/* Labels of one component: (list . "allocator"). */}}
{{- define "weir.labels" -}}
{{- $root := index . 0 -}}
{{ include "weir.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ include "weir.name" $root }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- end }}

{{- define "weir.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "weir.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "weir.serviceAccountName" -}}
{{ include "weir.allocator.name" . }}
{{- end }}

{{/* An image with registry and tag: (list . "sidecar"). */}}
{{- define "weir.image" -}}
{{- $root := index . 0 -}}
{{- $image := $root.Values.image -}}
{{- $repository := (index $image (index . 1)).repository -}}
{{- printf "%s/%s:%s" $image.registry $repository ($image.tag | default $root.Chart.AppVersion) -}}
{{- end }}

{{- define "weir.certManager" -}}
{{- if eq .Values.certificates.source "cert-manager" -}}
{{- if not .Values.certificates.issuerRef.name -}}
{{- fail "certificates.source is cert-manager: set certificates.issuerRef.name to an issuer with a CA of its own" -}}
{{- end -}}
true
{{- end -}}
{{- end }}

{{/*
What both webhook configurations say of where the allocator answers: (list . "/inject"). There is no
caBundle: the allocator writes it, and again after each change. Neither `helm upgrade` nor `kubectl
apply` takes away a field that no manifest of theirs has ever had.
*/}}
{{- define "weir.webhook.client" -}}
{{- $root := index . 0 -}}
service:
  namespace: {{ $root.Release.Namespace }}
  name: {{ include "weir.webhook.name" $root }}
  path: {{ index . 1 }}
  port: 443
{{- end }}


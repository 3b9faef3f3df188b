{{- define "finetune-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "finetune-operator.fullname" -}}
{{- $name := include "finetune-operator.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "finetune-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "finetune-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "finetune-operator.labels" -}}
{{ include "finetune-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "finetune-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "finetune-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is required when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The reference of an image. Takes a dictionary with the values of the image and the chart. */}}
{{- define "finetune-operator.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The peers that may read /progress and /metrics of jobs, as JSON: the operator's pods and those of metricsFrom. */}}
{{- define "finetune-operator.jobPeers" -}}
{{- $namespace := dict "matchLabels" (dict "kubernetes.io/metadata.name" .Release.Namespace) -}}
{{- $pods := dict "matchLabels" (include "finetune-operator.selectorLabels" . | fromYaml) -}}
{{- $operator := dict "namespaceSelector" $namespace "podSelector" $pods -}}
{{- concat (list $operator) (.Values.jobNetworkPolicy.metricsFrom | default list) | toJson -}}
{{- end -}}

{{/* The operator's permissions in the namespaces it watches. */}}
{{- define "finetune-operator.jobRules" -}}
- apiGroups: [finetune-operator.io]
  resources: [finetunejobs]
  verbs: [get, list, watch, delete] # delete is for ttlSecondsAfterFinished
- apiGroups: [finetune-operator.io]
  resources: [finetunejobs/status]
  verbs: [patch]
- apiGroups: [finetune-operator.io]
  resources: [finetunejobs/finalizers]
  verbs: [update] # for owner references with blockOwnerDeletion, where OwnerReferencesPermissionEnforcement is on
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, create]
{{- if .Values.rbac.readSecrets }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get] # to check that the Secrets of a job exist; only their metadata is requested
{{- end }}
- apiGroups: [events.k8s.io]
  resources: [events]
  # patch counts a repeated event, list is for the kubelet's warnings about pods that do not start
  verbs: [create, list, patch]
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads/status]
  verbs: [patch]
{{- if .Values.jobNetworkPolicy.enabled }}
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, patch] # patch is for running jobs when the operator is installed with other peers
{{- end }}
- apiGroups: [scheduling.k8s.io, scheduling.x-k8s.io, scheduling.volcano.sh]
  resources: [podgroups]
  verbs: [get, create, patch, delete] # delete is for the PodGroup of a document that was changed
{{- end -}}

{{/* The operator's permissions for objects that belong to no namespace. */}}
{{- define "finetune-operator.clusterRules" -}}
- apiGroups: [kueue.x-k8s.io]
  resources: [resourceflavors, workloadpriorityclasses]
  verbs: [get]
- apiGroups: [scheduling.k8s.io]
  resources: [priorityclasses]
  verbs: [get]
- apiGroups: [""]
  resources: [nodes]
  verbs: [list] # to recognize lost nodes
{{- end -}}

"""Field names of KubeRay 1.7 (ray.io/v1) and of the parts of Kubernetes that our manifests use, and a check by them.

The operator's own schemas drop unknown fields in silence, so that a misspelt one does nothing. A type is a scalar's
name, "map" (text to text), "any", "[]TYPE" or the name of another type; a field that must be there ends with "!".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

TYPES: dict[str, str] = {
    "RayCluster": "apiVersion!:ray.io/v1 kind!:string metadata!:ObjectMeta spec!:RayClusterSpec",
    "RayJob": "apiVersion!:ray.io/v1 kind!:string metadata!:ObjectMeta spec!:RayJobSpec",
    "RayService": "apiVersion!:ray.io/v1 kind!:string metadata!:ObjectMeta spec!:RayServiceSpec",
    "ServiceAccount": "apiVersion!:v1 kind!:string metadata!:ObjectMeta automountServiceAccountToken:boolean",
    "PersistentVolumeClaim": "apiVersion!:v1 kind!:string metadata!:ObjectMeta spec!:PersistentVolumeClaimSpec",
    # KubeRay's own
    "RayClusterSpec": "rayVersion!:string headGroupSpec!:HeadGroupSpec workerGroupSpecs:[]WorkerGroupSpec"
    " authOptions:AuthOptions autoscalerOptions:AutoscalerOptions enableInTreeAutoscaling:boolean"
    " gcsFaultToleranceOptions:GcsFaultToleranceOptions headServiceAnnotations:map historyServerOptions:any"
    " managedBy:string networkPolicy:any suspend:boolean tlsOptions:TLSOptions upgradeStrategy:ClusterUpgrade",
    "HeadGroupSpec": "template!:PodTemplateSpec rayStartParams:map enableIngress:boolean headService:any"
    " ingressOptions:any labels:map resources:map serviceType:ClusterIP|NodePort|LoadBalancer",
    "WorkerGroupSpec": "groupName!:string minReplicas!:integer maxReplicas!:integer template!:PodTemplateSpec"
    " replicas:integer rayStartParams:map idleTimeoutSeconds:integer labels:map numOfHosts:integer priority:integer"
    " resources:map scaleStrategy:any suspend:boolean",
    "AuthOptions": "mode:token|disabled secretName:string enableK8sTokenAuth:boolean",
    "AutoscalerOptions": "version:v1|v2 idleTimeoutSeconds:integer upscalingMode:Default|Aggressive|Conservative"
    " resources:Resources image:string imagePullPolicy:string securityContext:SecurityContext env:[]EnvVar envFrom:any"
    " volumeMounts:[]VolumeMount command:[]string args:[]string",
    "GcsFaultToleranceOptions": "backend:redis|rocksdb redisUsername:any redisPassword:any redisAddress:string"
    " externalStorageNamespace:string storage:any",
    "TLSOptions": "enabled:boolean",
    "ClusterUpgrade": "type:Recreate|None",
    "RayJobSpec": "entrypoint!:string rayClusterSpec:RayClusterSpec clusterSelector:map runtimeEnvYAML:string"
    " submissionMode:K8sJobMode|HTTPMode|InteractiveMode|SidecarMode submitterPodTemplate:PodTemplateSpec"
    " submitterConfig:SubmitterConfig backoffLimit:integer activeDeadlineSeconds:integer"
    " preRunningDeadlineSeconds:integer shutdownAfterJobFinishes:boolean ttlSecondsAfterFinished:integer"
    " entrypointNumCpus:number entrypointNumGpus:number entrypointResources:string deletionStrategy:any jobId:string"
    " managedBy:string metadata:map suspend:boolean",
    "SubmitterConfig": "backoffLimit:integer",
    "RayServiceSpec": "serveConfigV2!:string rayClusterConfig!:RayClusterSpec excludeHeadPodFromServeSvc:boolean"
    " upgradeStrategy:ServiceUpgrade serveService:any rayClusterDeletionDelaySeconds:integer managedBy:string"
    " suspend:boolean",
    "ServiceUpgrade": "type:NewCluster|NewClusterWithIncrementalUpgrade|None clusterUpgradeOptions:any",
    # Kubernetes'
    "ObjectMeta": "name:string namespace:string labels:map annotations:map",
    "PersistentVolumeClaimSpec": "accessModes!:[]AccessMode resources!:Resources storageClassName:string"
    " volumeMode:string volumeName:string selector:any",
    "AccessMode": "ReadWriteOnce|ReadOnlyMany|ReadWriteMany|ReadWriteOncePod",
    "PodTemplateSpec": "metadata:ObjectMeta spec!:PodSpec",
    "PodSpec": "containers!:[]Container initContainers:[]Container volumes:[]Volume serviceAccountName:string"
    " automountServiceAccountToken:boolean restartPolicy:Always|OnFailure|Never nodeSelector:map affinity:any"
    " tolerations:[]Toleration securityContext:PodSecurityContext terminationGracePeriodSeconds:integer"
    " topologySpreadConstraints:any priorityClassName:string imagePullSecrets:any hostNetwork:boolean hostPID:boolean"
    " hostIPC:boolean",
    "Container": "name!:string image!:string imagePullPolicy:Always|IfNotPresent|Never command:[]string args:[]string"
    " env:[]EnvVar envFrom:any ports:[]Port resources:Resources securityContext:SecurityContext livenessProbe:Probe"
    " readinessProbe:Probe startupProbe:Probe lifecycle:any volumeMounts:[]VolumeMount workingDir:string",
    "Port": "containerPort!:integer name:string protocol:string hostPort:integer",
    "EnvVar": "name!:string value:string valueFrom:any",
    "Resources": "requests:map limits:map",
    "SecurityContext": "allowPrivilegeEscalation:boolean capabilities:Capabilities privileged:boolean"
    " readOnlyRootFilesystem:boolean runAsNonRoot:boolean runAsUser:integer runAsGroup:integer seccompProfile:Seccomp",
    "PodSecurityContext": "runAsNonRoot:boolean runAsUser:integer runAsGroup:integer fsGroup:integer"
    " fsGroupChangePolicy:OnRootMismatch|Always supplementalGroups:any seccompProfile:Seccomp",
    "Capabilities": "add:[]string drop:[]string",
    "Seccomp": "type!:RuntimeDefault|Localhost|Unconfined localhostProfile:string",
    "Probe": "httpGet:HttpGet exec:Exec tcpSocket:any initialDelaySeconds:integer periodSeconds:integer"
    " timeoutSeconds:integer failureThreshold:integer successThreshold:integer",
    "HttpGet": "path!:string port!:integer host:string scheme:string",
    "Exec": "command!:[]string",
    "Toleration": "key:string operator:Exists|Equal value:string effect:NoSchedule|PreferNoSchedule|NoExecute"
    " tolerationSeconds:integer",
    "VolumeMount": "name!:string mountPath!:string readOnly:boolean subPath:string",
    "Volume": "name!:string emptyDir:EmptyDir persistentVolumeClaim:Claim configMap:any secret:any",
    "EmptyDir": "medium:Memory sizeLimit:string",
    "Claim": "claimName!:string readOnly:boolean",
}
SCALARS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}


def faults(value: Any, kind: str, where: str) -> Iterator[str]:
    """What of a manifest the operator or Kubernetes would drop or refuse."""
    if kind.startswith("[]"):
        yield from _list_faults(value, kind[2:], where)
    elif kind == "map":
        texts = isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
        yield from () if texts else [f"{where}: names and texts (in quotation marks) are wanted"]
    elif kind in SCALARS:
        right = isinstance(value, SCALARS[kind]) and (kind == "boolean") == isinstance(value, bool)
        yield from () if right else [f"{where}: {kind} wanted, not {value!r}"]
    elif ":" in TYPES.get(kind, ""):
        yield from _object_faults(value, TYPES[kind], where)
    elif kind != "any" and value not in TYPES.get(kind, kind).split("|"):
        yield f"{where}: {value!r} is none of {kind}"


def _list_faults(value: Any, kind: str, where: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{where}: a list is wanted"
        return
    for index, each in enumerate(value):
        yield from faults(each, kind, f"{where}[{index}]")


def _object_faults(value: Any, text: str, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where}: fields are wanted, not {value!r}"
        return
    fields = dict(field.split(":", 1) for field in text.split())
    kinds = {name.rstrip("!"): kind for name, kind in fields.items()}
    yield from (f"{where}.{name}: unknown" for name in value if name not in kinds)
    yield from (f"{where}.{name[:-1]}: missing" for name in fields if name.endswith("!") and name[:-1] not in value)
    for name in value.keys() & kinds.keys():
        yield from faults(value[name], kinds[name], f"{where}.{name}")

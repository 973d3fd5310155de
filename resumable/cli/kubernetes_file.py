"""Kubernetes objects for a server with given options, as deploy/kubernetes has them for usual ones.

Invariant: no secret is in it: variables and files come from Secrets, and the head of the manifest says how these are
made.
Spec: https://kubernetes.io/docs/reference/kubernetes-api/.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from resumable.cli.container_plan import IMAGE, RUN, UID, UPLOADS, ports_of, read_files, variables_of
from resumable.cli.service_plan import ServicePlan
from resumable.cli.yaml_text import yaml_text
from resumable.config.option import PREFIX
from resumable.listening.endpoints import only_loopback, split_endpoint

SECRETS: Final = "resumable-secrets"
FILES: Final = "resumable-files"
S3: Final = "resumable-s3"
METRICS: Final = 9090
_NAME: Final = {"app.kubernetes.io/name": "resumable"}
_MIB: Final = 1 << 20


def kubernetes_file(plan: ServicePlan, user: str | None) -> str:
    """The text of the manifest. ``user``: the number of user and group; None: the image's."""
    uid = UID if user is None else int(user)
    documents = [*_claims(plan), _deployment(plan, uid), *_services(plan)]
    if plan.is_shared:
        spec = {"maxUnavailable": 1, "selector": {"matchLabels": _NAME}}
        documents.append(_object("policy/v1", "PodDisruptionBudget", "resumable", spec))
    head = "".join(f"# {line}".rstrip() + "\n" for line in _head(plan))
    return head + "".join(f"---\n{yaml_text(each)}" for each in documents)


def _object(version: str, kind: str, name: str, spec: dict[str, Any], **labels: str) -> dict[str, Any]:
    found = {f"app.kubernetes.io/{label}": value for label, value in labels.items()}
    metadata = {"name": name, "labels": {**_NAME, **found}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _head(plan: ServicePlan) -> Iterator[str]:
    yield "Written by `resumable doctor --write kubernetes`. kubectl apply -f FILE"
    yield ""
    yield f"docker build -t REGISTRY/{IMAGE} . && docker push REGISTRY/{IMAGE}      # and write that name below"
    if plan.secrets:
        yield f"kubectl create secret generic {SECRETS} \\"
        yield "    " + " ".join(f"--from-literal={_key(each)}=..." for each in plan.secrets)
    if any(read_files(plan)):
        yield f"kubectl create secret generic {FILES} \\"
        yield "    " + " ".join(f"--from-file={each.key}={each.source}" for each in read_files(plan))
    if plan.uses_s3:
        yield f"kubectl create secret generic {S3} --from-literal=AWS_ACCESS_KEY_ID=... \\"
        yield "    --from-literal=AWS_SECRET_ACCESS_KEY=...      # not where a service account has the rights"
    if plan.upload_dir is not None or plan.file_remotes:
        yield "Directories of this machine are claims of volumes here: set their size and class."


def _key(variable: str) -> str:
    return variable.removeprefix(PREFIX).lower().replace("_", "-") if variable.startswith(PREFIX) else variable


def _claims(plan: ServicePlan) -> Iterator[dict[str, Any]]:
    names = [f"resumable-remote-{number}" for number, _ in enumerate(plan.file_remotes, 1)]
    if plan.settings.spool is None:
        names.insert(0, "resumable-uploads")
    for name in names:
        mode = "ReadWriteMany" if plan.is_shared else "ReadWriteOnce"
        spec = {"accessModes": [mode], "resources": {"requests": {"storage": "100Gi"}}}
        yield _object("v1", "PersistentVolumeClaim", name, spec)


def _services(plan: ServicePlan) -> Iterator[dict[str, Any]]:
    tls = "tls-cert" in plan.files
    ports = [{"name": "http", "port": 443 if tls else 80, "targetPort": "http"}]
    yield _object("v1", "Service", "resumable", {"type": "ClusterIP", "selector": _NAME, "ports": ports})
    yield _object(
        "v1",
        "Service",
        "resumable-metrics",
        {
            "clusterIP": "None",
            "#": "Prometheus also asks pods that aren't ready.",
            "publishNotReadyAddresses": True,
            "selector": _NAME,
            "ports": [{"name": "metrics", "port": _metrics(plan), "targetPort": "metrics"}],
        },
        component="metrics",
    )


def _metrics(plan: ServicePlan) -> int:
    """The admin listener's port."""
    for each in plan.settings.admin_listen:
        kind, arguments, named = split_endpoint(each)
        port = named.get("port") or (arguments or [""])[0]
        if kind.startswith("tcp") and port.isdigit() and port != "0":
            return int(port)
    return METRICS


def _deployment(plan: ServicePlan, uid: int) -> dict[str, Any]:
    strategy: dict[str, Any] = {"#": "Only one server at a time can use the upload directory.", "type": "Recreate"}
    if plan.is_shared:
        rolling = {"maxUnavailable": 0, "maxSurge": 1}
        strategy = {
            "#": "A new pod is ready before an old one stops.",
            "type": "RollingUpdate",
            "rollingUpdate": rolling,
        }
    spec = {
        "replicas": 2 if plan.is_shared else 1,
        "selector": {"matchLabels": _NAME},
        "strategy": strategy,
        "minReadySeconds": 5,
        "#deadline": "A recovery after a crash may take minutes.",
        "progressDeadlineSeconds": 1200,
        "template": {"metadata": {"labels": _NAME}, "spec": _pod(plan, uid)},
    }
    return _object("apps/v1", "Deployment", "resumable", spec)


def _pod(plan: ServicePlan, uid: int) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "#links": 'Otherwise the Service named "resumable" sets RESUMABLE_PORT=tcp://... in every pod beside it.',
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "#grace": "preStop, then twice --shutdown-timeout, and 20 s for events under way, workers and the disk.",
        "terminationGracePeriodSeconds": plan.stop_seconds + 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": uid,
            "runAsGroup": uid,
            "fsGroup": uid,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if any(each < 1024 for each in ports_of(plan)):
        pod["securityContext"]["sysctls"] = [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]
    if plan.is_shared:
        pod["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _NAME},
            }
            for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
        ]
    return {**pod, "containers": [_container(plan)], "volumes": list(_volumes(plan))}


def _container(plan: ServicePlan) -> dict[str, Any]:
    ports = [
        {"name": "http" if number == 0 else f"http-{number}", "containerPort": each}
        for number, each in enumerate(ports_of(plan))
    ]
    container: dict[str, Any] = {
        "name": "resumable",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "env": list(_environment(plan)),
    }
    if plan.uses_s3:
        container["envFrom"] = [{"secretRef": {"name": S3, "optional": True}}]
    return {
        **container,
        "ports": [*ports, {"name": "metrics", "containerPort": _metrics(plan)}],
        **_probes(plan),
        "#stop": "Until every proxy has heard that this pod stops.",
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
        "#cpu": "No limit of the processor: a throttled server acknowledges late.",
        "resources": _resources(plan),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": list(_mounts(plan)),
    }


def _environment(plan: ServicePlan) -> Iterator[dict[str, Any]]:
    found = variables_of(plan)
    found.setdefault("RESUMABLE_SHUTDOWN_TIMEOUT", f"{plan.settings.shutdown_timeout:g}")
    found.setdefault("RESUMABLE_LOG_FORMAT", "json" if plan.config is None else plan.settings.log_format)
    if not any(each.startswith("tcp") and not only_loopback([each]) for each in plan.settings.admin_listen):
        found["RESUMABLE_ADMIN_LISTEN"] = f"socket tcp:{_metrics(plan)}"
    yield from ({"name": name, "value": value.replace("$(", "$$(")} for name, value in found.items())
    for each in plan.secrets:
        yield {"name": each, "valueFrom": {"secretKeyRef": {"name": SECRETS, "key": _key(each)}}}


def _probes(plan: ServicePlan) -> dict[str, Any]:
    settings = plan.settings
    port, tls = "http", "tls-cert" in plan.files
    if settings.tls_client_ca is not None and not settings.tls_client_optional:
        port, tls = "metrics", False  # a kubelet has no certificate

    def asked(path: str) -> dict[str, Any]:
        return {"path": path, "port": port, **({"scheme": "HTTPS"} if tls else {})}

    live = {"httpGet": asked("/healthz"), "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6}
    ready = {"httpGet": asked("/readyz"), "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 2}
    return {
        "#start": "The ports open when the server is ready for the first time.",
        "startupProbe": {"httpGet": asked("/healthz"), "periodSeconds": 2, "failureThreshold": 450},
        "#live": "Is the event loop alive? If the database or the disk is lost, a restart doesn't help.",
        "livenessProbe": live,
        "#ready": "Can it take uploads?",
        "readinessProbe": ready,
    }


def _scratch(plan: ServicePlan) -> str | None:
    """Room for bytes on their way to the store, with --spool."""
    settings = plan.settings
    count = settings.workers or 1
    return None if settings.spool is None else f"{-(-settings.scratch_size * count // _MIB) + 64}Mi"


def _resources(plan: ServicePlan) -> dict[str, Any]:
    requests = {"cpu": "500m", "memory": "256Mi"}
    if (scratch := _scratch(plan)) is not None:
        requests["ephemeral-storage"] = scratch
    return {"requests": requests, "limits": {"memory": "1Gi"}}


def _mounts(plan: ServicePlan) -> Iterator[dict[str, Any]]:
    if plan.settings.spool is None:
        yield {"name": "uploads", "mountPath": str(UPLOADS)}
    for number, each in enumerate(plan.file_remotes, 1):
        yield {"name": f"remote-{number}", "mountPath": str(each)}
    for found in read_files(plan):
        yield {"name": "files", "mountPath": str(found.target), "subPath": found.key, "readOnly": True}
    yield {"name": "run", "mountPath": RUN}
    yield {"name": "tmp", "mountPath": "/tmp"}


def _volumes(plan: ServicePlan) -> Iterator[dict[str, Any]]:
    if plan.settings.spool is None:
        yield {"name": "uploads", "persistentVolumeClaim": {"claimName": "resumable-uploads"}}
    for number, _ in enumerate(plan.file_remotes, 1):
        yield {"name": f"remote-{number}", "persistentVolumeClaim": {"claimName": f"resumable-remote-{number}"}}
    if any(read_files(plan)):
        yield {"name": "files", "secret": {"secretName": FILES, "defaultMode": 0o440}}
    scratch = _scratch(plan)
    yield {"name": "run", "emptyDir": {} if scratch is None else {"sizeLimit": scratch}}
    yield {"name": "tmp", "emptyDir": {}}

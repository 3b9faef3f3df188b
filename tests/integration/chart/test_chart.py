"""The chart, rendered by Helm."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.chart.conftest import Render, set_flags

from finetune_operator.codegen import generate
from finetune_operator.codegen.chart_values import parse_values
from finetune_operator.codegen.crd import CRD_NAME, build_crd
from finetune_operator.profiles import Profiles
from finetune_operator.settings import Settings

CHART = generate.ROOT / generate.CHART
OPERATOR = "finetune-operator"
EVERYTHING = (
    "monitoring.serviceMonitor.enabled=true",
    "monitoring.podMonitor.enabled=true",
    "monitoring.prometheusRule.enabled=true",
    "dashboard.enabled=true",
    "networkPolicy.enabled=true",
    "imagePullSecrets[0].name=registry",
    "extraEnv[0].name=A",
    "extraEnv[0].value=b",
    "extraArgs[0]=--workers=4",
    "priorityClassName=system-cluster-critical",
    "tolerations[0].operator=Exists",
    "commonLabels.team=ml",
    "extraVolumes[0].name=ca",
    "extraVolumes[0].configMap.name=ca",
    "extraVolumeMounts[0].name=ca",
    "extraVolumeMounts[0].mountPath=/ca",
    "affinity.nodeAffinity.a=b",
    "serviceAccount.annotations.a=b",
    "service.annotations.a=b",
    "podLabels.a=b",
    "podAnnotations.a=b",
)
ALWAYS = {
    ("CustomResourceDefinition", CRD_NAME),
    ("ServiceAccount", OPERATOR),
    ("ClusterRole", f"{OPERATOR}-view"),
    ("ClusterRole", f"{OPERATOR}-edit"),
    ("Service", OPERATOR),
    ("Deployment", OPERATOR),
    ("PodDisruptionBudget", OPERATOR),
    ("Role", f"{OPERATOR}-leader-election"),
    ("RoleBinding", f"{OPERATOR}-leader-election"),
    ("Pod", f"{OPERATOR}-test"),
}
CLUSTER_WIDE = {("ClusterRole", OPERATOR), ("ClusterRoleBinding", OPERATOR)}
RBAC = ("ClusterRole", "Role", "RoleBinding")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), ALWAYS | CLUSTER_WIDE),
        (("watchNamespaces={team}",), ALWAYS | CLUSTER_WIDE | {("Role", OPERATOR), ("RoleBinding", OPERATOR)}),
        (("crds.enabled=false",), (ALWAYS | CLUSTER_WIDE) - {("CustomResourceDefinition", CRD_NAME)}),
        (("rbac.create=false", "rbac.aggregateClusterRoles=false"), {key for key in ALWAYS if key[0] not in RBAC}),
        (("podDisruptionBudget.enabled=false",), (ALWAYS | CLUSTER_WIDE) - {("PodDisruptionBudget", OPERATOR)}),
        (("serviceAccount.create=false", "serviceAccount.name=a"), (ALWAYS | CLUSTER_WIDE) - {("ServiceAccount", OPERATOR)}),
        (("service.enabled=false",), (ALWAYS | CLUSTER_WIDE) - {("Service", OPERATOR)}),
        (
            EVERYTHING,
            ALWAYS
            | CLUSTER_WIDE
            | {
                ("ServiceMonitor", OPERATOR),
                ("PodMonitor", f"{OPERATOR}-trainers"),
                ("PrometheusRule", OPERATOR),
                ("ConfigMap", f"{OPERATOR}-dashboard"),
                ("NetworkPolicy", OPERATOR),
            },
        ),
    ],
    ids=["default", "namespaced", "no-crds", "no-rbac", "no-pdb", "own-account", "no-service", "everything"],
)
def test_values_select_the_objects(render: Render, values: tuple[str, ...], expected: set[Any]) -> None:
    assert set(render(*values)) == expected


@pytest.mark.parametrize("values", [(), ("watchNamespaces={a,b}",), EVERYTHING], ids=["default", "namespaced", "everything"])
def test_passes_helm_lint(helm: Path, values: tuple[str, ...]) -> None:
    result = subprocess.run([helm, "lint", "--strict", CHART, *set_flags(values)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    "value",
    [
        "replica=2",
        "replicas=-1",
        "replicas=two",
        "podDisruptionBudget.maxUnavailable=0",
        "podDisruptionBudget.maxUnavailable=half",
        "podDisruptionBudget.minAvailable=1",
        "evictionSeconds=-1",
        "commonLabels.a=1",
        "topologySpreadConstraints.a=b",
        "extraVolumes.a=b",
        "rbac.readSecrets=maybe",
        "logLevel=LOUD",
        "watchNamespaces={Team}",
        "image.digest=sha256:1",
        "service.port=0",
        "crds.enabled=yes",
        "jobNetworkPolicy.metricsFrom[0].a=b",
        "jobNetworkPolicy.metricsFrom[0].ipBlock.except=a",
    ],
)
def test_schema_rejects_invalid_values(render: Render, value: str) -> None:
    with pytest.raises(AssertionError, match="values don't meet the specifications"):
        render(value)


def test_contains_the_generated_crd(render: Render) -> None:
    kept, not_kept = (render(f"crds.keep={keep}")["CustomResourceDefinition", CRD_NAME] for keep in ("true", "false"))
    assert kept["spec"] == build_crd()["spec"]
    assert kept["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "annotations" not in not_kept["metadata"]


def test_generated_files_are_up_to_date(helm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check", f"--helm={helm}"]) == 0, capsys.readouterr().out


def test_operator_meets_the_restricted_pod_security_level(render: Render) -> None:
    objects = render()
    deployed = objects["Deployment", OPERATOR]["spec"]["template"]["spec"]
    for pod in (deployed, objects["Pod", f"{OPERATOR}-test"]["spec"]):
        check_restricted(pod)
    assert {volume["name"]: set(volume) - {"name"} for volume in deployed["volumes"]} == {"tmp": {"emptyDir"}}


def check_restricted(pod: dict[str, Any]) -> None:
    [container] = pod["containers"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), {"trainer_image": "finetune-trainer:0.1.0", "namespaces": "", "http_port": 8080, "log_level": "INFO"}),
        (("watchNamespaces={a,b}", "logLevel=DEBUG", "logFormat=json"), {"namespaces": "a,b", "log_format": "json"}),
        (("trainerImage.repository=r/t", "trainerImage.tag=v1"), {"trainer_image": "r/t:v1"}),
        ((f"trainerImage.digest=sha256:{'0' * 64}",), {"trainer_image": f"finetune-trainer@sha256:{'0' * 64}"}),
        (("trainerImage.pullPolicy=Always",), {"image_pull_policy": "Always"}),
        (("extraArgs={--workers=4}",), {"workers": 4}),
        ((), {"lease": "finetune-system/finetune-operator"}),
        (("fullnameOverride=trainers",), {"lease": "finetune-system/trainers"}),
    ],
)
def test_operator_parses_the_rendered_arguments(render: Render, values: tuple[str, ...], expected: dict[str, Any]) -> None:
    [deployment] = [item for (kind, _), item in render(*values).items() if kind == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    settings = Settings.from_arguments(container["args"], {})
    assert {name: getattr(settings, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("probe", "path"), [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz"), ("startupProbe", "/healthz")]
)
def test_probes_request_paths_of_the_operator(render: Render, probe: str, path: str) -> None:
    [container] = render()["Deployment", OPERATOR]["spec"]["template"]["spec"]["containers"]
    assert container[probe]["httpGet"] == {"path": path, "port": "http"}
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]


# Objects without a namespace, which the operator reads in every installation.
CLUSTER_RULES = [
    ("kueue.x-k8s.io", "resourceflavors", ["get"]),
    ("kueue.x-k8s.io", "workloadpriorityclasses", ["get"]),
    ("scheduling.k8s.io", "priorityclasses", ["get"]),
    ("", "nodes", ["list"]),
]
ROLES = [((), "ClusterRole"), (("watchNamespaces={team}",), "Role")]


@pytest.mark.parametrize(("values", "kind"), ROLES, ids=["cluster", "namespaced"])
def test_grants_only_the_required_permissions(render: Render, values: tuple[str, ...], kind: str) -> None:
    objects = render(*values)
    rules = [
        (group, resource, sorted(rule["verbs"]))
        for rule in objects[kind, OPERATOR]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    ]
    assert rules == [
        ("finetune-operator.io", "finetunejobs", ["delete", "get", "list", "watch"]),
        ("finetune-operator.io", "finetunejobs/status", ["patch"]),
        ("finetune-operator.io", "finetunejobs/finalizers", ["update"]),
        ("", "pods", ["create", "delete", "get", "list", "watch"]),
        ("", "services", ["create", "get"]),
        ("", "secrets", ["get"]),
        ("events.k8s.io", "events", ["create", "list", "patch"]),
        ("kueue.x-k8s.io", "workloads", ["create", "delete", "get", "list", "patch", "watch"]),
        ("kueue.x-k8s.io", "workloads/status", ["patch"]),
        ("networking.k8s.io", "networkpolicies", ["create", "get", "patch"]),
        ("scheduling.k8s.io", "podgroups", ["create", "delete", "get", "patch"]),
        ("scheduling.x-k8s.io", "podgroups", ["create", "delete", "get", "patch"]),
        ("scheduling.volcano.sh", "podgroups", ["create", "delete", "get", "patch"]),
        *(CLUSTER_RULES if kind == "ClusterRole" else []),
    ]
    if kind == "Role":
        assert [rule["resources"] for rule in objects["ClusterRole", OPERATOR]["rules"]] == [
            ["resourceflavors", "workloadpriorityclasses"],
            ["priorityclasses"],
            ["nodes"],
        ]
    binding = objects[f"{kind}Binding", OPERATOR]
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": OPERATOR}
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": "finetune-system"}]


def test_each_watched_namespace_has_a_role(helm: Path) -> None:
    command = [helm, "template", OPERATOR, CHART, *set_flags(["watchNamespaces={a,b}"])]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    objects = [document for document in yaml.safe_load_all(output) if document]
    bound = [(item["kind"], item["metadata"]["namespace"]) for item in objects if item["kind"] in ("Role", "RoleBinding")]
    expected = [(kind, namespace) for kind in ("Role", "RoleBinding") for namespace in ("a", "b", "default")]
    assert sorted(bound) == expected, "default is the namespace of the release, which has the Lease"


PROFILES = [
    {
        "name": "default",
        "limits": {"images": ["registry.example.com/*"], "maxNodes": 8},
        "defaults": {"template": {"nodeSelector": {"gpu": "h100"}, "env": [{"name": "A", "value": "a: {{ b }} # c"}]}},
    },
    {"name": "research", "namespaces": ["research-*"], "limits": {"secrets": ["wandb"], "hostNetwork": True}},
]


def test_operator_reads_the_profiles(helm: Path, tmp_path: Path) -> None:
    values = tmp_path / "values.json"
    values.write_text(json.dumps({"profiles": PROFILES}))
    command = [helm, "template", OPERATOR, CHART, "--namespace=finetune-system", f"--values={values}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    objects = {(item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(output) if item}
    config = objects["ConfigMap", f"{OPERATOR}-profiles"]
    assert config["metadata"]["namespace"] == "finetune-system"
    template = objects["Deployment", OPERATOR]["spec"]["template"]
    pod = template["spec"]
    [mount] = [item for item in pod["containers"][0]["volumeMounts"] if item["name"] == "profiles"]
    assert {"name": "profiles", "configMap": {"name": config["metadata"]["name"]}} in pod["volumes"]
    file = Settings.from_arguments(pod["containers"][0]["args"], {}).profiles
    assert mount["readOnly"]
    folder, _, key = file.rpartition("/")
    assert folder == mount["mountPath"]
    parsed = Profiles.parse(config["data"][key])
    assert parsed == Profiles.model_validate({"profiles": PROFILES})
    assert parsed.profiles[0].defaults.template.env[0].value == "a: {{ b }} # c"


def test_changed_profiles_restart_the_operator_which_has_none_by_default(render: Render) -> None:
    def deployed(*values: str) -> tuple[str | None, str, bool]:
        objects = render(*values)
        template = objects["Deployment", OPERATOR]["spec"]["template"]
        file = Settings.from_arguments(template["spec"]["containers"][0]["args"], {}).profiles
        checksum = template["metadata"]["annotations"].get("checksum/profiles")
        return checksum, file, ("ConfigMap", f"{OPERATOR}-profiles") in objects

    assert deployed() == (None, "", False)
    first, second = (deployed(f"profiles[0].name={name}")[0] for name in ("a", "b"))
    assert first
    assert second
    assert first != second


@pytest.mark.parametrize(
    ("value", "withheld"), [("rbac.readSecrets=false", "secrets"), ("jobNetworkPolicy.enabled=false", "networkpolicies")]
)
def test_permission_is_withheld_alone(value: str, withheld: str, render: Render) -> None:
    def rules(*values: str) -> list[dict[str, Any]]:
        granted: list[dict[str, Any]] = render(*values)["ClusterRole", OPERATOR]["rules"]
        return granted

    assert rules(value) == [rule for rule in rules() if rule["resources"] != [withheld]]
    assert len(rules(value)) == len(rules()) - 1


def test_policies_of_jobs_admit_the_operator_and_prometheus(render: Render) -> None:
    objects = render("nameOverride=trainers", namespace="ml-system")
    [(name, deployment)] = [(key[1], item) for key, item in objects.items() if key[0] == "Deployment"]
    template = deployment["spec"]["template"]
    peers = Settings.from_arguments(template["spec"]["containers"][0]["args"], {}).network_policy_peers
    assert peers is not None
    operator, prometheus = peers
    assert operator["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "ml-system"}}
    labels = operator["podSelector"]["matchLabels"]
    assert labels.items() <= template["metadata"]["labels"].items()
    assert not labels.items() <= objects["Pod", f"{name}-test"]["metadata"]["labels"].items()
    assert prometheus == {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}


def test_policies_of_jobs_can_be_changed_and_turned_off(render: Render) -> None:
    def operator(*values: str) -> tuple[list[dict[str, Any]] | None, bool]:
        objects = render(*values)
        [container] = objects["Deployment", OPERATOR]["spec"]["template"]["spec"]["containers"]
        may_create = any("networkpolicies" in rule["resources"] for rule in objects["ClusterRole", OPERATOR]["rules"])
        return Settings.from_arguments(container["args"], {}).network_policy_peers, may_create

    assert operator("jobNetworkPolicy.enabled=false") == (None, False)
    peers, may_create = operator("jobNetworkPolicy.metricsFrom[0].ipBlock.cidr=10.0.0.0/8")
    assert may_create
    assert peers is not None
    assert peers[1:] == [{"ipBlock": {"cidr": "10.0.0.0/8"}}]
    assert operator("jobNetworkPolicy.metricsFrom=null") == (peers[:1], True)


def test_only_one_lease_may_be_changed(render: Render) -> None:
    role = render("fullnameOverride=trainers", "watchNamespaces={team}")["Role", "trainers-leader-election"]
    assert role["metadata"]["namespace"] == "finetune-system"
    assert role["rules"] == [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["trainers"],
            "verbs": ["get", "update"],
        },
    ]


def test_replicas_are_spread_and_replaced_soon(render: Render) -> None:
    objects = render()
    spec = objects["Deployment", OPERATOR]["spec"]
    pod, selector = spec["template"]["spec"], spec["selector"]["matchLabels"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert objects["PodDisruptionBudget", OPERATOR]["spec"] == {"maxUnavailable": 1, "selector": {"matchLabels": selector}}
    assert pod["tolerations"] == [
        {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
        for key in ("not-ready", "unreachable")
    ]
    [preferred] = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["podAffinityTerm"] == {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": selector},
    }
    assert pod["topologySpreadConstraints"] == [
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector},
        }
    ]


def test_placement_can_be_changed(render: Render) -> None:
    constraint = "topologySpreadConstraints[0]"
    pod = render(
        "replicas=1",
        "evictionSeconds=5",
        "tolerations[0].key=gpu",
        "affinity.nodeAffinity.a=b",
        f"{constraint}.topologyKey=rack",
        f"{constraint}.labelSelector.matchLabels.a=b",
    )["Deployment", OPERATOR]["spec"]["template"]["spec"]
    assert [(item["key"], item.get("tolerationSeconds")) for item in pod["tolerations"]] == [
        ("node.kubernetes.io/not-ready", 5),
        ("node.kubernetes.io/unreachable", 5),
        ("gpu", None),
    ]
    assert pod["affinity"] == {"nodeAffinity": {"a": "b"}}
    assert pod["topologySpreadConstraints"] == [{"topologyKey": "rack", "labelSelector": {"matchLabels": {"a": "b"}}}]
    assert (
        "topologySpreadConstraints"
        not in render("topologySpreadConstraints=null")["Deployment", OPERATOR]["spec"]["template"]["spec"]
    )


def test_pods_can_be_extended(render: Render) -> None:
    pod = render(*EVERYTHING, "podSecurityContext.fsGroup=7", "podSecurityContext.runAsUser=null")["Deployment", OPERATOR]
    spec = pod["spec"]["template"]["spec"]
    assert spec["volumes"][-1] == {"name": "ca", "configMap": {"name": "ca"}}
    assert spec["containers"][0]["volumeMounts"][-1] == {"name": "ca", "mountPath": "/ca"}
    assert "runAsUser" not in spec["securityContext"], "OpenShift chooses the user"
    assert spec["securityContext"]["fsGroup"] == 7


def test_every_object_has_the_common_labels(render: Render) -> None:
    for key, item in render(*EVERYTHING).items():
        assert item["metadata"]["labels"]["team"] == "ml", key
        if key == ("Deployment", OPERATOR):
            assert item["spec"]["template"]["metadata"]["labels"]["team"] == "ml"
            assert "team" not in item["spec"]["selector"]["matchLabels"], "the selector of a Deployment cannot change"


def test_helm_test_runs_the_script_and_is_not_part_of_the_service(render: Render) -> None:
    objects = render()
    pod = objects["Pod", f"{OPERATOR}-test"]
    [container] = pod["spec"]["containers"]
    assert container["args"] == [(CHART / "files/installation_test.py").read_text()]
    assert container["command"] == ["python", "-c"]
    assert {item["name"]: item["value"] for item in container["env"]} == {
        "LEASE": "finetune-system/finetune-operator",
        "OPERATOR": "http://finetune-operator.finetune-system.svc:8080",
    }
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert not objects["Service", OPERATOR]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    [without_service] = render("service.enabled=false")["Pod", f"{OPERATOR}-test"]["spec"]["containers"]
    assert [item["name"] for item in without_service["env"]] == ["LEASE"]


def test_service_selects_the_pod(render: Render) -> None:
    objects = render("podLabels.a=b")
    labels = objects["Deployment", OPERATOR]["spec"]["template"]["metadata"]["labels"]
    selectors = (
        objects["Service", OPERATOR]["spec"]["selector"],
        objects["Deployment", OPERATOR]["spec"]["selector"]["matchLabels"],
    )
    assert all(selector.items() <= labels.items() for selector in selectors)


def test_config_map_contains_the_dashboard(render: Render) -> None:
    config = render("dashboard.enabled=true")["ConfigMap", f"{OPERATOR}-dashboard"]
    source = (generate.ROOT / "manifests/dashboards/finetune.json").read_text()
    assert json.loads(config["data"]["finetune.json"]) == json.loads(source)


def paths_of(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from paths_of(value, f"{prefix}{name}.")


def test_every_value_is_documented_and_used() -> None:
    text = (CHART / "values.yaml").read_text()
    documented = {value.path for value in parse_values(text)}
    templates = "".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
    for path in paths_of(yaml.safe_load(text)):
        path_and_parents = {path.rsplit(".", depth)[0] for depth in range(path.count(".") + 1)}
        children = {other for other in documented if other.startswith(f"{path}.")}
        assert path_and_parents & documented or children, f"{path} has no comment"
    words = re.findall(r"\w+", templates)
    assert [path for path in documented if path.rpartition(".")[2] not in words] == []

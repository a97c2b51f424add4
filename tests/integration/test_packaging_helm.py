"""The Helm chart as Helm renders it: objects that Kubernetes takes, pods that may do little, fit configurations."""

import json
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import trustme
import yaml
from support import go_parts

from filter import app
from filter.config import Config
from filter.users import hash_password

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "consentry"
RELEASE = "mail"
VERSIONS = ("1.30.0", "1.37.0")  # of Kubernetes: an old one that is in use, and the latest whose schemas we have
CLIENTS = {"smtp": {"relay_networks": ["10.0.0.0/8"]}}
BROKERS = {"kafka": {"bootstrap_servers": ["kafka-0.kafka:9092", "kafka-1.kafka:9094"], "tls": "verify"}}
KEYS = {"subjectKey": {"name": "keys"}, "holdKey": {"name": "keys"}}
DATABASE = "postgresql://consentry@db.example:6432/{}?sslmode=require"
VALUES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "SQLite, both doors": {"config": {**CLIENTS, **BROKERS}, "kafka": {"enabled": True}},
    "PostgreSQL, both doors": {
        "config": {**CLIENTS, **BROKERS},
        "kafka": {"enabled": True, "replicas": 3},
        "store": {"kind": "postgresql", "urls": {"smtp": DATABASE.format("smtp"), "kafka": DATABASE.format("kafka")}},
        "secrets": {**KEYS, "storePassword": {"name": "database"}},
    },
    "PostgreSQL, with what pods leave kept": {
        "store": {"kind": "postgresql", "urls": {"smtp": DATABASE.format("smtp")}},
        "secrets": KEYS,
        "smtp": {"kind": "StatefulSet"},
    },
    "Kafka alone": {"config": BROKERS, "smtp": {"enabled": False}, "kafka": {"enabled": True}},
    "everything": {
        "image": {"repository": "registry.example/consentry", "digest": f"sha256:{'0' * 64}"},
        "imagePullSecrets": ["registry"],
        "config": {
            **BROKERS,
            "workers": 4,
            "next_hop": {"hosts": ["mta-a.example:25", "mta-b.example:587"], "tls": "verify", "user": "relay"},
            "kafka": {**BROKERS["kafka"], "sasl": "SCRAM-SHA-512", "user": "consentry"},
            "policy": {"unsure_from": 0.5, "marketing": {"unknown": "reject"}},
            "hold": {"retention": {"*": "30d", "no_consent": "7d"}, "release_connections": 5},
            "stream": [
                {
                    "match": {"from_domain": ["bank.example"]},
                    "controller": 'The "Bank" & Co',
                    "brand": "Grüne <Bank>",
                    "topic": "offers",
                },
                {"controller": "default", "brand": "default", "topic": "default", "mode": "monitor"},
            ],
        },
        "secrets": {
            **KEYS,
            "storePassword": {"name": "database"},
            "nextHopPassword": {"name": "mta"},
            "users": {"name": "users"},
            "kafkaPassword": {"name": "kafka"},
            "tls": {"name": "relay-tls"},
            "kafkaTls": {"name": "kafka-tls"},
        },
        "authorities": {"nextHop": {"name": "trust"}, "kafka": {"name": "trust"}},
        "store": {"kind": "postgresql", "urls": {"smtp": DATABASE.format("smtp"), "kafka": DATABASE.format("kafka")}},
        "smtp": {
            "implicitTls": True,
            "config": {
                "smtp": {"require_tls": True, "max_message_size": "30 MiB"},
                "kafka": {"consent_topic": "consent"},
            },
            "service": {
                "type": "LoadBalancer",
                "externalTrafficPolicy": "Local",
                "annotations": {"lb.example/internal": "true"},
                "loadBalancerSourceRanges": ["192.0.2.0/24"],
            },
            "nodeSelector": {"mail": "true"},
            "tolerations": [{"key": "mail", "operator": "Exists"}],
            "priorityClassName": "mail",
            "podLabels": {"team": "mail"},
            "podAnnotations": {"team.example/on-call": "mail"},
            "extraContainers": [
                {
                    "name": "ship",
                    "image": "shipper",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "resources": {"limits": {"memory": "64Mi"}},
                    "volumeMounts": [{"name": "store", "mountPath": "/store", "readOnly": True}],
                }
            ],
        },
        "kafka": {"enabled": True, "config": {"kafka": {"group": "judges"}}},
        "networkPolicy": {
            "egressTo": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
            "extraEgress": [{"ports": [{"port": 443, "protocol": "TCP"}]}],
        },
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
    },
}
REFUSED = {
    "an unknown value": ({"smpt": {}}, "smpt"),
    "a store directory of one's own": ({"config": {"store": {"dir": "/store"}}}, "store"),
    "a password in the database's address": (
        {"store": {"kind": "postgresql", "urls": {"smtp": "postgresql://user:secret@db/x"}}},
        "urls",
    ),
    "no door at all": ({"smtp": {"enabled": False}}, "smtp.enabled or kafka.enabled"),
    "Kafka without brokers": ({"kafka": {"enabled": True}}, "bootstrap_servers"),
    "a database without keys that all have": (
        {"store": {"kind": "postgresql", "urls": {"smtp": DATABASE.format("x")}}},
        "secrets.holdKey.name",
    ),
    "a database without its address": ({"store": {"kind": "postgresql"}, "secrets": KEYS}, "store.urls.smtp"),
    "one database for two doors": (
        {
            "config": BROKERS,
            "kafka": {"enabled": True},
            "store": {"kind": "postgresql", "urls": {"smtp": DATABASE.format("x"), "kafka": DATABASE.format("x")}},
            "secrets": KEYS,
        },
        "two databases",
    ),
    "a Deployment over SQLite": ({"smtp": {"kind": "Deployment"}}, "outlives its pod"),
    "a TLS port without a certificate": ({"smtp": {"implicitTls": True}}, "secrets.tls.name"),
}


def helm(*arguments: str | Path, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """One command of Helm over these values."""
    command = [go_parts.helm(), *arguments]
    if values is not None:
        command += ["--values", "-"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    return subprocess.run(
        command, env=environment, input=json.dumps(values), capture_output=True, text=True, timeout=60, check=False
    )


def rendered(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of the chart."""
    done = helm("template", RELEASE, CHART, "--namespace", "relay", "--kube-version", VERSIONS[0], values=values)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


@pytest.fixture(scope="module", params=VALUES)
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What is rendered of each set of values."""
    return rendered(VALUES[request.param])


def of_kind(objects: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    """The objects of these kinds."""
    return [each for each in objects if each["kind"] in kinds]


def workloads(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What makes pods."""
    return of_kind(objects, "StatefulSet", "Deployment")


def pods(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The pods as they are made."""
    return (each["spec"]["template"] for each in workloads(objects))


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """All containers of a pod."""
    return [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_helm_finds_nothing_to_complain_about(values: dict[str, Any]) -> None:
    """`helm lint --strict` passes with each set of values."""
    done = helm("lint", "--strict", CHART, values=values)
    assert done.returncode == 0, done.stdout


def test_kubernetes_would_take_it(objects: list[dict[str, Any]]) -> None:
    """Every object is valid by the schemas of Kubernetes, or by the definition of the Prometheus operator."""
    definitions = {"ServiceMonitor": "servicemonitors", "PrometheusRule": "prometheusrules"}
    for each in objects:
        if each["kind"] in definitions:
            definition = yaml.safe_load(go_parts.operator_definition(definitions[each["kind"]]).read_text())
            (version,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
            jsonschema.Draft202012Validator(closed(version["schema"]["openAPIV3Schema"])).validate(each)
        else:
            for version in VERSIONS:
                kubernetes_validate.validate(each, version, strict=True)


def closed(schema: Any) -> Any:
    """A schema of a definition in which nothing may stand that it does not name, as the server would drop it."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    one = {name: closed(value) for name, value in schema.items()}
    named = isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema
    if named and schema.get("type") == "object" and "kind" not in schema["properties"]:
        one["additionalProperties"] = False
    return one


def test_names_and_labels_belong_together(objects: list[dict[str, Any]]) -> None:
    """Every selector finds its pods and no others; ports, config maps and accounts that are named exist."""
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(set(names)) == len(names)
    made = {each["metadata"]["name"]: each["spec"]["template"] for each in workloads(objects)}

    def selected(labels: dict[str, str]) -> list[str]:
        return [name for name, pod in made.items() if labels.items() <= pod["metadata"]["labels"].items()]

    for each in workloads(objects):
        assert selected(each["spec"]["selector"]["matchLabels"]) == [each["metadata"]["name"]]
        assert each["kind"] == "Deployment" or ("Service", each["spec"]["serviceName"]) in names
        spec = each["spec"]["template"]["spec"]
        assert ("ServiceAccount", spec["serviceAccountName"]) in names
        assert {
            ("ConfigMap", volume["configMap"]["name"]) for volume in spec["volumes"] if "configMap" in volume
        } <= set(names)
        volumes = {volume["name"] for volume in spec["volumes"]}
        volumes |= {claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", ())}
        for container in containers(each["spec"]["template"]):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    for each in of_kind(objects, "Service"):
        (name,) = selected(each["spec"]["selector"])
        ports = {port["name"] for port in made[name]["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports
    for each in of_kind(objects, "PodDisruptionBudget"):
        assert selected(each["spec"]["selector"]["matchLabels"]) == [each["metadata"]["name"]]
    for each in of_kind(objects, "NetworkPolicy"):
        (name,) = selected(each["spec"]["podSelector"]["matchLabels"])
        ports = {port["name"] for port in made[name]["spec"]["containers"][0]["ports"]}
        assert {port["port"] for rule in each["spec"]["ingress"] for port in rule["ports"]} == ports
    assert len(of_kind(objects, "PodDisruptionBudget")) == len(of_kind(objects, "NetworkPolicy")) == len(made)


def test_pods_may_do_little(objects: list[dict[str, Any]]) -> None:
    """Pods fulfil Kubernetes' Restricted standard, write to their volumes only, and know no token of the cluster."""
    for pod in pods(objects):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume]
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in context
            assert container["resources"]["limits"]["memory"]


def test_pods_end_and_begin_in_time(objects: list[dict[str, Any]]) -> None:
    """A pod has longer to end than a drain takes, is asked whether it lives and is ready, and is spread over nodes."""
    for pod in pods(objects):
        main = pod["spec"]["containers"][0]
        wait = int(main["lifecycle"]["preStop"]["exec"]["command"][1])
        default = Config.default()
        drain = max(default.smtp.drain_time, default.kafka.drain_time)
        assert pod["spec"]["terminationGracePeriodSeconds"] > wait + drain + 5
        assert main["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
        assert main["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
        assert main["startupProbe"]["failureThreshold"] * main["startupProbe"]["periodSeconds"] >= 120
        assert pod["spec"]["topologySpreadConstraints"]


def test_held_mail_outlives_pods(objects: list[dict[str, Any]]) -> None:
    """A store in SQLite is on a claimed volume; only pods whose held mail is in a database may be Deployments."""
    for each in workloads(objects):
        (claim,) = each["spec"].get("volumeClaimTemplates") or [None]
        if each["kind"] == "Deployment":
            assert "url = " in configuration(objects, each)
        else:
            assert claim["metadata"]["name"] == "store"


def test_secrets_are_referred_to(objects: list[dict[str, Any]]) -> None:
    """No object holds a secret; Secrets are mounted for the one container that copies them, and in no environment."""
    assert not of_kind(objects, "Secret")
    for pod in pods(objects):
        for container in containers(pod):
            assert "env" not in container
            assert "envFrom" not in container
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert container["name"] == "prepare" or "mounted-secrets" not in mounted


def configuration(objects: list[dict[str, Any]], workload: dict[str, Any]) -> str:
    """The configuration file of a workload's pods."""
    (found,) = [
        each for each in of_kind(objects, "ConfigMap") if each["metadata"]["name"] == workload["metadata"]["name"]
    ]
    return str(found["data"]["filter.toml"])


def test_its_configurations_are_fit_for_use(objects: list[dict[str, Any]], tmp_path: Path, rules_cache: Path) -> None:
    """Every configuration passes what `config check` does, with the files as the first container prepares them."""
    for number, workload in enumerate(workloads(objects)):
        spec = workload["spec"]["template"]["spec"]
        home = tmp_path / str(number)
        text = configuration(objects, workload)
        for place in (
            "run/secrets/consentry",
            "etc/consentry",
            "etc/consentry-authorities",
            "var/lib/consentry",
            "mnt",
        ):
            (home / place).mkdir(parents=True)
            text = text.replace(f'"/{place}/', f'"{home}/{place}/')
        authority = trustme.CA()
        mount(spec, home, authority)
        (prepare,) = spec["initContainers"]
        script = prepare["args"][0]
        for place in ("/run/secrets/consentry", "/var/lib/consentry", "/mnt/secrets"):
            script = script.replace(place, f"{home}{place}")
        subprocess.run([*prepare["command"], script], check=True, timeout=30)
        (home / "var/lib/consentry/store/cache").symlink_to(rules_cache)
        assert (home / "var/lib/consentry/store").stat().st_mode & 0o777 == 0o700
        for secret in (home / "run/secrets/consentry").iterdir():
            assert secret.stat().st_mode & 0o777 == 0o400
        (home / "etc/consentry/filter.toml").write_text(text)
        app.check(home / "etc/consentry/filter.toml")


def mount(spec: dict[str, Any], home: Path, authority: trustme.CA) -> None:
    """Put files where the pod's volumes would have them."""
    certificate = authority.issue_cert("relay.example")
    contents = {
        ".crt": certificate.cert_chain_pems[0].bytes(),
        "tls.key": certificate.private_key_pem.bytes(),
        "kafka.key": certificate.private_key_pem.bytes(),
        "users": f"app:{hash_password('secret')}\n".encode(),
    }
    for volume in spec["volumes"]:
        target = {"mounted-secrets": "mnt/secrets", "authorities": "etc/consentry-authorities"}.get(volume["name"])
        for source in volume["projected"]["sources"] if target else ():
            (item,) = next(iter(source.values()))["items"]
            file = home / str(target) / item["path"]
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(
                next(
                    (text for end, text in contents.items() if file.name.endswith(end)), secrets.token_hex(32).encode()
                )
            )
            file.chmod(0o440)


def test_values_reach_the_configuration() -> None:
    """Words, numbers and tables of values arrive in the configuration as they were meant, whatever signs they have."""
    objects = rendered(VALUES["everything"])
    smtp, kafka = (
        configuration(objects, each)
        for each in sorted(workloads(objects), key=lambda one: one["metadata"]["name"], reverse=True)
    )
    for text in (smtp, kafka):
        assert re.search(r"^workers = 4$", text, flags=re.MULTILINE)
        assert re.search(r"^unsure_from = 0\.5$", text, flags=re.MULTILINE)
        assert '"no_consent" = "7d"' in text
        assert r'controller = "The \"Bank\" & Co"' in text
        assert 'brand = "Grüne <Bank>"' in text
    assert 'group = "judges"' in kafka
    assert "listen = []" in kafka
    assert 'consent_topic = "consent"' in smtp
    assert 'topic = ""' in smtp
    assert 'listen = ["0.0.0.0:2625"]' in smtp
    assert 'max_message_size = "30 MiB"' in smtp


def test_a_changed_configuration_makes_new_pods() -> None:
    """Pods are replaced when their configuration changes, and not when it does not."""

    def sums(values: dict[str, Any]) -> list[str]:
        return [pod["metadata"]["annotations"]["checksum/config"] for pod in pods(rendered(values))]

    assert sums({}) == sums({"smtp": {"replicas": 5}}) != sums({"config": {"workers": 3}})


def test_egress_is_what_the_configuration_names() -> None:
    """Pods may reach the name service and the ports of next hop, database and brokers."""
    for each in of_kind(rendered(VALUES["everything"]), "NetworkPolicy"):
        names, own, extra = each["spec"]["egress"]
        assert {port["port"] for port in names["ports"]} == {53}
        assert {port["port"] for port in own["ports"]} == {25, 587, 6432, 9092, 9094}
        assert own["to"] == [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
        assert extra["ports"][0]["port"] == 443
        assert each["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_prometheus_finds_every_pod_and_the_rules() -> None:
    """The monitor selects the services of all pods, ready or not; the rules are those of deploy/prometheus."""
    objects = rendered(VALUES["everything"])
    (monitor,) = of_kind(objects, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    found = [each for each in of_kind(objects, "Service") if wanted <= each["metadata"]["labels"].items()]
    assert len(found) == 2
    for service in found:
        assert service["spec"]["publishNotReadyAddresses"]
        assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "consentry"
    (rule,) = of_kind(objects, "PrometheusRule")
    files = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    assert rule["spec"]["groups"] == groups


@pytest.mark.parametrize(("values", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused(values: dict[str, Any], said: str) -> None:
    """Values that would fail later, or lose mail, are refused with a word on why."""
    done = helm("template", RELEASE, CHART, "--kube-version", VERSIONS[0], values=values)
    assert done.returncode != 0
    assert said in done.stderr


def notes(values: Mapping[str, Any], directory: Path) -> str:
    """What one reads after the installation; Helm itself shows it beside a cluster only."""
    chart = shutil.copytree(CHART, directory / "chart", ignore=shutil.ignore_patterns("rules"))
    shutil.move(chart / "templates" / "NOTES.txt", chart / "notes")
    shown = '{"kind": "Notes", "text": {{ tpl (.Files.Get "notes") . | toRawJson }}}'
    (chart / "templates" / "shown.yaml").write_text(shown)
    arguments = ("--namespace", "relay", "--kube-version", VERSIONS[0], "--show-only", "templates/shown.yaml")
    done = helm("template", RELEASE, chart, *arguments, values=values)
    assert done.returncode == 0, done.stderr
    return str(yaml.safe_load(done.stdout)["text"])


def test_notes_say_what_is_next(tmp_path: Path) -> None:
    """After an installation one reads where held mail is looked at, and that nobody may send yet."""
    text = notes({}, tmp_path)
    assert "exec -it statefulset/mail-consentry-smtp -c consentry -- consentry held stats" in text
    assert "NOBODY MAY SEND YET" in text
    assert "default/default/default is monitored" in text


def test_notes_warn_of_a_journal_that_goes_with_its_pod(tmp_path: Path) -> None:
    """Where pods keep nothing, one reads that the journal is to be shipped, and of certificates that are read once."""
    text = notes(VALUES["everything"], tmp_path)
    assert text.count("The journal is on the pod and goes with it") == 2
    assert "NOBODY" not in text
    assert "kubectl rollout restart" in text

"""deploy/compose.yaml: what Compose would take, containers that may do little, files that are there and fit for use."""

import os
import re
import shutil
import smtplib
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from support import go_parts, parts
from support.kafka import need_kafka
from support.postfix import MAIN, Postfix, _first_group
from support.processes import Process, run, wait_for_port
from support.running import consentry

from filter.config import Config, load_config

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FILE = DEPLOY / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WITHOUT_END = {name for name, service in SERVICES.items() if service["restart"] != "no"}
ROOTS = {"secrets", "postfix"}  # who cannot do without the user root, and with few of its rights
CONFIG = DEPLOY / "compose" / "consentry.toml"
SECRETS = DEPLOY / "compose" / "make_secrets.py"


def bind_mounts() -> Iterator[tuple[str, Path, str, str]]:
    """Service, path here, path there, and mode of everything that is mounted from this directory."""
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source, target, *mode = volume.split(":")
            if source.startswith("."):
                yield name, DEPLOY / source, target, ",".join(mode)


def test_compose_would_take_it() -> None:
    """It is valid by the schema of the Compose specification."""
    jsonschema.Draft202012Validator(yaml.safe_load(go_parts.compose_schema().read_text())).validate(COMPOSE)


def test_everything_that_is_mounted_is_there() -> None:
    """Every path that is mounted exists, and nobody may write to it."""
    mounted = list(bind_mounts())
    assert len(mounted) > 8
    dashboards = DEPLOY / "grafana"  # made apart from this; once it is there, all of it must be
    for _, path, _, mode in mounted:
        assert path.exists() or (path.is_relative_to(dashboards) and not dashboards.exists()), path
        assert mode == "ro"
    for service in SERVICES.values():
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"].get("dockerfile", "Dockerfile")).is_file()


def test_what_is_mentioned_is_declared() -> None:
    """Volumes, networks and services that are mentioned are declared, and what is declared is used."""
    used = {
        volume.partition(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", ())
        if not volume.startswith(".")
    }
    assert used == set(COMPOSE["volumes"])
    assert {each for service in SERVICES.values() for each in service.get("networks", ())} == set(COMPOSE["networks"])
    for service in SERVICES.values():
        for other, wanted in service.get("depends_on", {}).items():
            ends = wanted["condition"] == "service_completed_successfully"
            assert ends == (other not in WITHOUT_END), other


def test_containers_may_do_little() -> None:
    """No capability but what root needs, no new privileges, a read-only file system, and no user root but for two."""
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert ("cap_add" in service) == (name in ROOTS), name
        assert not {"privileged", "pid", "ipc", "devices"} & service.keys()
        assert "docker.sock" not in str(service)
        assert "max-size" in service["logging"]["options"]


def test_ports_are_those_of_the_loopback_interface() -> None:
    """Nothing is published to other machines; what need not be seen is on a network that leads nowhere."""
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)
    assert COMPOSE["networks"]["back"]["internal"] is True
    for name in ("kafka", "postgres"):
        assert SERVICES[name]["networks"] == ["back"]


def test_everything_that_stays_is_asked_for_its_health() -> None:
    """Every service that stays has a health check, of its own or of the image that is built here."""
    for name in WITHOUT_END:
        service = SERVICES[name]
        built = {"consentry": ROOT / "Dockerfile", "consentry-postfix": DEPLOY / "compose/postfix/Dockerfile"}
        own = "test" in service.get("healthcheck", {})
        assert own or "\nHEALTHCHECK " in built[service["image"]].read_text(), name


def test_images_are_of_a_version() -> None:
    """Images that are not built here are named with a version."""
    built = {service["image"] for service in SERVICES.values() if "build" in service}
    for service in SERVICES.values():
        assert service["image"] in built or re.search(r":v?\d+(\.\d+){1,2}$|:\d+-\w+$", service["image"])


def test_it_has_longer_to_end_than_a_drain_takes() -> None:
    """Compose kills the relay only after its drain."""
    assert SERVICES["consentry"]["stop_grace_period"] == "2m"
    config = load_config(CONFIG)
    assert max(config.smtp.drain_time, config.kafka.drain_time) + 10 < 120


def test_no_secret_stands_in_it() -> None:
    """Neither compose.yaml nor what it mounts holds a password: variables name files."""
    files = [FILE, *(path for path in (DEPLOY / "compose").rglob("*") if path.is_file() and path != SECRETS)]
    for file in files:
        for line in file.read_text().splitlines():
            found = re.search(r"(?i)(?:password|secret|token)\w*\s*(?:=|:\s)\s*([^\s{].*)", line.partition("#")[0])
            assert not found or re.match(r'"?/run/secrets/', found[1]), f"{file}: {line}"


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The secrets of a first start."""
    directory = tmp_path_factory.mktemp("secrets")
    for name in ("consentry", "postgres", "grafana"):
        (directory / name).mkdir()
    make_secrets(directory)
    return directory


def make_secrets(directory: Path) -> None:
    """What the service "secrets" does."""
    entry = SERVICES["secrets"]["entrypoint"]
    assert entry == ["python", "-I", "/setup/make_secrets.py", "/secrets"]
    subprocess.run([sys.executable, "-I", SECRETS, directory], check=True, timeout=30)


def test_secrets_are_made_once_and_for_one_user_each(secrets: Path) -> None:
    """Every secret that a service names is made, readable by its user alone; a second start changes none."""
    made = {path: path.read_text() for path in secrets.rglob("*") if path.is_file()}
    volumes = {
        target: volume for service in SERVICES.values() for volume, target, *_ in map(split, service.get("volumes", ()))
    }
    named = set(re.findall(r"/run/secrets/([a-z]+/[a-z.]+)", FILE.read_text() + CONFIG.read_text()))
    assert {str(path.relative_to(secrets)) for path in made} == named
    assert {f"/run/secrets/{name.partition('/')[0]}" for name in named} <= volumes.keys()
    for path, text in made.items():
        assert len(text.strip()) == 64
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
        if os.geteuid() == 0:
            user = SERVICES[path.parent.name].get("user", "10001:10001")
            assert f"{path.stat().st_uid}:{path.stat().st_gid}" == user
    shared = made[secrets / "consentry/store.password"] == made[secrets / "postgres/password"]
    assert shared
    assert len(set(made.values())) == len(made) - 1
    make_secrets(secrets)
    assert made == {path: path.read_text() for path in secrets.rglob("*") if path.is_file()}


def split(volume: str) -> list[str]:
    """Source, target and mode of a volume."""
    return volume.split(":")


def test_the_relay_would_start(secrets: Path, tmp_path: Path, rules_cache: Path) -> None:
    """The mounted configuration passes `consentry config check` with the secrets of a first start, and says no more
    than compose.yaml does: its store, ports and neighbours.
    """
    text = CONFIG.read_text().replace("/run/secrets/consentry", f"{secrets}/consentry")
    (tmp_path / "filter.toml").write_text(text.replace("/var/lib/consentry", f"{tmp_path}/store"))
    (tmp_path / "store").mkdir(mode=0o700)
    (tmp_path / "store" / "cache").symlink_to(rules_cache)
    done = consentry("config", "check", "-c", tmp_path / "filter.toml")
    assert done.code == 0, done.output
    config = load_config(CONFIG)
    targets = {port.rpartition(":")[2] for port in SERVICES["consentry"]["ports"]}
    assert targets == {str(config.smtp.listen[0].port), str(config.http.listen.port)}
    assert {host.host for host in (*config.next_hop.hosts, *config.kafka.bootstrap_servers)} == {"postfix", "kafka"}
    assert {"postfix", "kafka-topics", "postgres", "secrets"} == SERVICES["consentry"]["depends_on"].keys()
    subnets = [each["ipam"]["config"][0]["subnet"] for each in COMPOSE["networks"].values()]
    assert all(any(subnet.startswith("172.30.25.") for network in config.smtp.relay_networks) for subnet in subnets)
    assert [str(network) for network in config.smtp.relay_networks] == ["172.30.25.0/24"]


def test_the_topics_are_those_of_the_kafka_door() -> None:
    """The topics that are made are those that the configuration reads and writes; outputs take more than the input."""
    script = (DEPLOY / "compose/kafka/topics.sh").read_text()
    names = re.search(r"^for name in (.+); do$", script, flags=re.MULTILINE)
    assert names
    made = {f"outbound.{name}" for name in names[1].split()} | set(re.findall(r"--topic ([a-z.]+) ", script))
    kafka = load_config(CONFIG).kafka
    assert made == {kafka.topic, kafka.consent_topic, *kafka.outputs}
    sizes = [int(size) for size in re.findall(r"max.message.bytes=(\d+)", script)]
    assert sizes[0] == Config.default().kafka.max_message_size
    assert sizes[1] >= sizes[0] + 65536


def test_kafka_takes_its_settings(tmp_path: Path) -> None:
    """Kafka's own storage tool formats a directory by the mounted settings and the cluster's name."""
    install = need_kafka()
    settings = (DEPLOY / "compose/kafka/server.properties").read_text()
    (tmp_path / "server.properties").write_text(settings.replace("/var/lib/kafka/data", f"{tmp_path}/data"))
    cluster = SERVICES["kafka"]["environment"]["KAFKA_CLUSTER_ID"]
    arguments = ("format", "--ignore-formatted", "--cluster-id", cluster, "--config", tmp_path / "server.properties")
    done = run(install.command("kafka.tools.StorageTool", *arguments), install.environment)
    assert done.code == 0, done.output
    assert f"cluster.id={cluster}" in (tmp_path / "data/meta.properties").read_text()


def test_postfix_takes_its_settings(tmp_path: Path) -> None:
    """Postfix knows every parameter and service of the mounted files, and sends nothing away by them."""
    part = parts.need("postfix")
    for name in ("main.cf", "master.cf"):
        shutil.copy(DEPLOY / "compose/postfix" / name, tmp_path)
    for what in ("-n", "-M"):
        done = run([part.program("postconf"), "-c", tmp_path, what], part.environment)
        assert done.code == 0, done.output
        assert "warning" not in done.output
    done = run(
        [part.program("postconf"), "-c", tmp_path, "-h", "defer_transports", "default_transport"], part.environment
    )
    deferred, default = done.output.splitlines()
    assert default in deferred.replace(",", " ").split()


class MountedPostfix(Postfix):
    """A Postfix by the mounted files, with no more rights than its container has; only where its files are differs."""

    def _start(self, owner: str) -> None:
        places = self._places()
        self._directories(owner)
        ours = MAIN.format(home=self.home, owner=owner, group=_first_group(), **places).splitlines()
        where = re.compile(r"\w+_directory|maillog_\w+|mail_owner|setgid_group|import_environment|inet_interfaces")
        kept = [line for line in ours if where.match(line)]
        names = {line.partition(" ")[0] for line in kept}
        mounted = (DEPLOY / "compose/postfix/main.cf").read_text().splitlines()
        text = "\n".join([*(line for line in mounted if line.partition(" ")[0] not in names), *kept, ""])
        services = (DEPLOY / "compose/postfix/master.cf").read_text()
        doors, changed = re.subn(r"^2525 ", f"127.0.0.1:{self.port} ", services, flags=re.MULTILINE)
        assert changed == 1
        for name, content in (("main.cf", text), ("master.cf", doors)):
            file = self.home / "etc" / name
            file.write_text(content)
            os.utime(file, (file.stat().st_mtime - 60,) * 2)  # Postfix waits seconds for a file that was just written
        rights = ",".join(["-all", *(f"+{name.lower()}" for name in SERVICES["postfix"]["cap_add"])])
        confined = ["setpriv", "--no-new-privs", "--bounding-set", rights, "--inh-caps=-all"]
        master = [*confined, f"{places['daemons']}/master", "-c", str(self.home / "etc"), "-d"]
        self._process = Process(master, self._part.environment, self.home / "output")
        wait_for_port(self.port, self._process)


def test_postfix_queues_and_sends_nothing_away() -> None:
    """By the mounted files and with the rights of its container, Postfix takes mail and keeps it."""
    with MountedPostfix({}) as postfix:
        with smtplib.SMTP("127.0.0.1", postfix.port, local_hostname="relay.example", timeout=30) as client:
            client.sendmail("news@bank.example", ["a@home.example"], b"Subject: Your card\r\n\r\nIt was posted.\r\n")
        (waiting,) = postfix.wait_deferred(1)
        assert "deferred transport" in str(waiting)
        assert "fatal" not in postfix.log()
        assert "panic" not in postfix.log()


def test_prometheus_is_configured_as_elsewhere() -> None:
    """Its configuration is deploy/prometheus/prometheus.yml, but for the target."""
    here = yaml.safe_load((DEPLOY / "compose/prometheus.yml").read_text())
    there = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    assert here["scrape_configs"][0].pop("static_configs") == [{"targets": ["consentry:9625"]}]
    there["scrape_configs"][0].pop("static_configs")
    assert here == there


def test_scripts_are_sound() -> None:
    """A shell reads the scripts without complaint."""
    for script in (DEPLOY / "compose").rglob("*.sh"):
        subprocess.run(["sh", "-n", script], check=True, timeout=10)

"""deploy/ used for real: what is rendered fits Kubernetes' schemas, and the binary is run as it says:
commands, arguments, configuration, ports, probes, the end of a pod."""

import base64
import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import tomllib
import urllib.error
import urllib.request

import kubernetes_validate
import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry

from servers import REPOSITORY, Process, until

DEPLOY = REPOSITORY / "deploy"
KUSTOMIZATIONS = {
    "example": DEPLOY / "kubernetes/shared/overlays/example",
    "tls": DEPLOY / "kubernetes/shared/overlays/tls",
    "unix-socket": DEPLOY / "kubernetes/sidecar/overlays/unix-socket",
    "unmodified-app": DEPLOY / "kubernetes/sidecar/overlays/unmodified-app",
}
CHART = DEPLOY / "helm/slotway"
VALUES = {
    "defaults": {"seeds": ["redis-cluster-0.redis-cluster:6379"]},
    "everything": {
        "seeds": ["redis-cluster-0.redis-cluster:6379", "[2001:db8::1]:7000"],
        "config": {
            "limits": {"memory": "384MiB", "clients": 1000000},
            "read_from": "any",
            "tls": {"downstream": {"min_version": "1.3"}, "upstream": {"verify": "chain"}},
        },
        "upstream": {
            "existingSecret": "redis-cluster",
            "userKey": "username",
            "tls": {"enabled": True, "existingSecret": "redis-cluster-tls"},
        },
        "tls": {"existingSecret": "slotway-tls", "port": 6390, "clientCAKey": "ca.crt"},
        "rolloutOnChange": False,
        "users": {"existingSecret": "slotway-users"},
        "extraEnv": [{"name": "SLOTWAY_ZONE", "value": "a"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "autoscaling": {"enabled": False},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Redis"}},
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "podLabels": {"team": "data"},
        "tolerations": [{"operator": "Exists"}],
        "imagePullSecrets": ["registry"],
        "priorityClassName": "high",
    },
}
# the oldest that the manifests are for, and a new one
KUBERNETES = ("1.30", "1.37")
BINARY = pathlib.Path(os.environ.get("SLOTWAY_TEST_BIN", REPOSITORY / "target/release/slotway"))


def kustomize(folder):
    """What `kubectl apply -k` would apply."""
    for tool in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(tool[0]):
            out = subprocess.run([*tool, folder], capture_output=True, text=True)
            assert out.returncode == 0, out.stderr
            return list(yaml.safe_load_all(out.stdout))
    pytest.skip("needs kubectl or kustomize")


def helm(values, name="cache", namespace="redis"):
    """What `helm install` would apply, by Helm's own engine."""
    helm_python = pytest.importorskip("helm_python")
    with contextlib.closing(helm_python.Chart.load(CHART)) as chart:
        files = chart.render(values, name=name, namespace=namespace)
    texts = (text for file, text in files.items() if file.endswith(".yaml"))
    return [doc for text in texts for doc in yaml.safe_load_all(text) if doc]


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


class Authority:
    """A CA, and the Secrets that cert-manager would make of its certificates."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "ca.crt"
        self.key(folder / "ca.key")
        openssl("req", "-x509", "-new", "-key", folder / "ca.key", "-subj", "/CN=ca", "-days", 2,
                "-out", self.file)

    def key(self, file):
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", file)

    def sign(self, name):
        """The files of a certificate and its key."""
        key, cert = self.folder / f"{name}.key", self.folder / f"{name}.crt"
        request, names = self.folder / "request", self.folder / "names"
        self.key(key)
        names.write_text(f"subjectAltName=DNS:{name}\n")
        openssl("req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self.folder / "ca.key",
                "-CAcreateserial", "-days", 2, "-extfile", names, "-out", cert)
        return cert, key

    def secret(self, name):
        cert, key = self.sign(name)
        files = {"tls.crt": cert, "tls.key": key, "ca.crt": self.file}
        data = {k: base64.b64encode(f.read_bytes()).decode() for k, f in files.items()}
        kind = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls"}
        return {**kind, "metadata": {"name": name}, "data": data}


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def rendered():
    """Every kustomization, rendered."""
    return {name: kustomize(folder) for name, folder in KUSTOMIZATIONS.items()}


def one(docs, kind, name=None):
    found = [d for d in docs if d["kind"] == kind and name in (None, d["metadata"]["name"])]
    assert len(found) == 1, f"{kind} {name}: {len(found)}"
    return found[0]


def pod(doc):
    """Its pod template."""
    return doc["spec"]["template"]


def container(doc, name="slotway"):
    spec = pod(doc)["spec"]
    found = [
        c for c in spec.get("initContainers", []) + spec["containers"] if c["name"] == name
    ]
    assert len(found) == 1, name
    return found[0]


def fits_the_schemas(docs):
    for doc in docs:
        # a custom resource of the Prometheus operator: Kubernetes has no schema of it
        if doc["apiVersion"].startswith("monitoring.coreos.com/"):
            continue
        for version in KUBERNETES:
            kubernetes_validate.validate(doc, version, strict=True)


def holds_together(docs):
    """What schemas do not see: that names, labels and ports that refer to each other exist."""
    names = {(d["kind"], d["metadata"]["name"]) for d in docs}
    pods = [pod(d) for d in docs if d["kind"] in ("Deployment", "StatefulSet", "Job")]

    def selected(labels):
        return [p for p in pods if labels.items() <= p["metadata"]["labels"].items()]

    def ports(p):
        every = p["spec"].get("initContainers", []) + p["spec"]["containers"]
        return {port["name"] for c in every for port in c.get("ports", [])}

    services = [d for d in docs if d["kind"] == "Service"]
    for doc in docs:
        kind, spec = doc["kind"], doc.get("spec", {})
        if kind == "Service":
            chosen = selected(spec["selector"])
            assert len(chosen) == 1, doc["metadata"]["name"]
            for port in spec["ports"]:
                assert port.get("targetPort", port["name"]) in ports(chosen[0])
        elif kind in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            assert len(selected(spec["selector"]["matchLabels"])) == 1
        elif kind == "NetworkPolicy":
            (chosen,) = selected(spec["podSelector"]["matchLabels"])
            for rule in spec["ingress"]:
                for port in rule["ports"]:
                    assert port["port"] in ports(chosen)
                # one that was to be written, not one that kustomize has added labels to
                for peer in rule["from"]:
                    assert "app.kubernetes.io/name" not in json.dumps(peer)
        elif kind == "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]
            assert (target["kind"], target["name"]) in names
            assert "replicas" not in one(docs, target["kind"], target["name"])["spec"]
        elif kind == "ServiceMonitor":
            wanted = spec["selector"]["matchLabels"]
            (service,) = [s for s in services if wanted.items() <= s["metadata"]["labels"].items()]
            for endpoint in spec["endpoints"]:
                assert endpoint["port"] in {p["name"] for p in service["spec"]["ports"]}
        elif kind == "PodMonitor":
            (chosen,) = selected(spec["selector"]["matchLabels"])
            for endpoint in spec["podMetricsEndpoints"]:
                assert endpoint["port"] in ports(chosen)
    for p in pods:
        volumes = {v["name"] for v in p["spec"].get("volumes", [])}
        claims = [t for d in docs for t in d.get("spec", {}).get("volumeClaimTemplates", [])]
        volumes |= {t["metadata"]["name"] for t in claims}
        for volume in p["spec"].get("volumes", []):
            if "secret" in volume and ("Namespace", "redis") in names:
                assert ("Secret", volume["secret"]["secretName"]) in names
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names
        for c in p["spec"].get("initContainers", []) + p["spec"]["containers"]:
            assert {m["name"] for m in c.get("volumeMounts", [])} <= volumes
            if c["name"] in ("slotway", "redis", "create"):
                has = {**p["spec"].get("securityContext", {}), **c["securityContext"]}
                assert has["runAsNonRoot"] and has["readOnlyRootFilesystem"]
                assert has["allowPrivilegeEscalation"] is False
                assert has["capabilities"] == {"drop": ["ALL"]}
                assert has["seccompProfile"] == {"type": "RuntimeDefault"}


MI = 1 << 20


def size(text):
    """Bytes of 512Mi, 1Gi, "384MiB"."""
    number, unit = re.fullmatch(r"(\d+)([KMG])i?B?", text).groups()
    return int(number) << {"K": 10, "M": 20, "G": 30}[unit]


def fits_its_memory(docs, figures):
    """slotway's containers get what limits.memory needs: it and 64 MiB are below the container's
    limit, and where it is "auto" the comment in `figures` names what that comes to."""
    (config,) = [tomllib.loads(d["data"]["proxy.toml"]) for d in docs if d["kind"] == "ConfigMap"
                 and "seeds" in tomllib.loads(d.get("data", {}).get("proxy.toml", ""))]
    memory = config.get("limits", {}).get("memory", "auto")
    found = 0
    for doc in docs:
        if doc["kind"] != "Deployment":
            continue
        spec = pod(doc)["spec"]
        for c in spec.get("initContainers", []) + spec["containers"]:
            if c["name"] != "slotway":
                continue
            found += 1
            limit = size(c["resources"]["limits"]["memory"])
            assert size(c["resources"]["requests"]["memory"]) <= limit
            if memory == "auto":
                auto = (limit - 64 * MI) * 3 // 4
                assert auto >= 16 * MI and f"{auto // MI} MiB" in figures
            else:
                assert size(memory) + 64 * MI <= limit
    assert found


@pytest.mark.parametrize("page", ["docs/operations.md", "deploy/README.md"])
def test_the_memory_of_the_documents(page):
    """What they say that "auto" comes to."""
    figures = re.findall(r"([\d,]+) MiB of (\d+) ([MG])iB", (DEPLOY.parent / page).read_text())
    assert len(figures) >= 2
    for auto, number, unit in figures:
        limit = size(f"{number}{unit}i")
        assert int(auto.replace(",", "")) * MI == (limit - 64 * MI) * 3 // 4, (auto, number, unit)


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_the_memory_of_kustomizations(rendered, name):
    use = KUSTOMIZATIONS[name].relative_to(DEPLOY / "kubernetes").parts[0]
    path = {"shared": "shared/base", "sidecar": "sidecar/components/slotway"}[use]
    figures = (DEPLOY / "kubernetes" / path / "proxy.toml").read_text()
    fits_its_memory(rendered[name], figures)


@pytest.mark.parametrize("name", VALUES)
def test_the_memory_of_the_chart(name):
    fits_its_memory(helm(VALUES[name]), (CHART / "values.yaml").read_text())


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_kustomizations(rendered, authority, name):
    # certificates are not made by a kustomization
    secrets = [authority.secret("slotway-tls")] if name == "tls" else []
    fits_the_schemas(rendered[name] + secrets)
    holds_together(rendered[name] + secrets)


@pytest.mark.parametrize(
    "use, overlay, name", [("shared", "example", "slotway"), ("sidecar", "unix-socket", "app")]
)
def test_the_components_for_tls_to_the_nodes(rendered, authority, tmp_path, use, overlay, name):
    folder = tmp_path.resolve()
    component = DEPLOY / "kubernetes" / use / "components/upstream-tls"
    kustomization = {
        "resources": [os.path.relpath(KUSTOMIZATIONS[overlay], folder)],
        "components": [os.path.relpath(component, folder)],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    docs = [*kustomize(folder), authority.secret("redis-cluster-tls")]
    fits_the_schemas(docs)
    holds_together(docs)
    if use == "sidecar":
        docs.append(one(rendered["example"], "Secret", "redis-cluster"))
    with Place(one(docs, "Deployment", name), docs, "127.0.0.1") as place:
        out = place.run_once(["check", "--config", "/etc/slotway/proxy.toml"])
        assert out.returncode == 0 and not out.stderr, out.stderr
        assert tomllib.loads(out.stdout)["tls"]["upstream"]["enabled"] is True
        assert "# tls.upstream.cert: common name redis-cluster-tls;" in out.stdout


@pytest.mark.parametrize("name", VALUES)
def test_the_chart(name, authority):
    docs = helm(VALUES[name])
    fits_the_schemas(docs)
    holds_together(docs)
    if "dashboard" in VALUES[name]:
        (dashboard,) = [d for d in docs if d["metadata"]["name"].endswith("-dashboard")]
        assert json.loads(dashboard["data"]["slotway.json"])["uid"] == "slotway"
        docs.remove(dashboard)
        rules = yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())
        assert one(docs, "PrometheusRule")["spec"] == rules
    deployment = one(docs, "Deployment")
    shutdown = yaml.safe_load((CHART / "values.yaml").read_text())["shutdown"]
    grace = pod(deployment)["spec"]["terminationGracePeriodSeconds"]
    assert grace > shutdown["preStopSeconds"] + shutdown["drainSeconds"]
    # slotway understands the file that comes out of the values
    # Secrets that exist already
    password, users = base64.b64encode(b"s3cret"), base64.b64encode(b"user app on >s3cret +@all")
    login = {"password": password, "username": base64.b64encode(b"proxy\n")}
    docs += [
        {"kind": "Secret", "metadata": {"name": "redis-cluster"}, "data": login},
        {"kind": "Secret", "metadata": {"name": "slotway-users"}, "data": {"users.acl": users}},
        authority.secret("slotway-tls"),
        authority.secret("redis-cluster-tls"),
    ]
    with Place(deployment, docs, "127.0.0.1") as place:
        out = place.run_once(["check", "--config", "/etc/slotway/proxy.toml"])
        assert out.returncode == 0 and not out.stderr, out.stderr
        comes_to = tomllib.loads(out.stdout)
        assert comes_to["seeds"] == VALUES[name]["seeds"]
        wanted = VALUES[name].get("config", {}).get("limits", {}).get("clients", 20000)
        assert comes_to["limits"]["clients"] == wanted
        has_users = "users" in VALUES[name]
        assert comes_to["protected_mode"] is has_users and bool(comes_to["users_file"]) is has_users
        assert "s3cret" not in out.stdout and "PRIVATE KEY" not in out.stdout
        downstream, upstream = comes_to["tls"]["downstream"], comes_to["tls"]["upstream"]
        if name == "defaults":
            assert downstream["listen"] == [] and upstream["enabled"] is False
            return
        (listen,) = downstream["listen"]
        assert listen.endswith(f":{place.port('redis-tls')}")
        assert (downstream["client_auth"], downstream["min_version"]) == ("required", "1.3")
        assert (upstream["enabled"], upstream["verify"]) == (True, "chain")
        assert "# tls.downstream.cert: common name slotway-tls;" in out.stdout
        assert "# tls.upstream.cert: common name redis-cluster-tls;" in out.stdout
        assert comes_to["upstream"]["user"] == "proxy"
        assert "checksum/config" not in json.dumps(deployment)


@pytest.mark.parametrize(
    "values, reason",
    [
        ({}, "seeds"),
        ({"seeds": ["no-port"]}, "seeds"),
        ({"seeds": ["a:1"], "worker": 1}, "worker"),
        ({"seeds": ["a:1"], "config": {"admin": ""}}, "admin"),
        ({"seeds": ["a:1"], "config": {"tls": {"admin": {"cert": "x"}}}}, "admin"),
        ({"seeds": ["a:1"], "upstream": {"tls": {"enabled": True}}}, "existingSecret"),
        ({"seeds": ["a:1"], "shutdown": {"preStopSeconds": 0}}, "preStopSeconds"),
    ],
)
def test_the_chart_refuses_wrong_values(values, reason):
    helm_python = pytest.importorskip("helm_python")
    with pytest.raises(helm_python.HelmError, match=reason):
        helm(values)


def test_the_chart_by_helms_own_linter():
    helm_python = pytest.importorskip("helm_python")
    result = helm_python.lint(CHART, VALUES["everything"])
    assert result["total_charts_linted"] == 1 and result["errors"] == []
    assert [m for m in result["messages"] if m["severity"] > 1] == []


def test_every_value_of_the_chart_is_documented_and_in_the_schema():
    lines = (CHART / "values.yaml").read_text().splitlines()
    values = yaml.safe_load("\n".join(lines))
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}
    for key, part in schema["properties"].items():
        if part.get("additionalProperties") is False:
            assert set(values[key]) == set(part["properties"]), key
    parts = schema["properties"]["upstream"]["properties"]
    assert set(values["upstream"]["tls"]) == set(parts["tls"]["properties"])


def test_the_image_has_nothing_but_the_binary():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    final = lines[max(i for i, line in enumerate(lines) if line.startswith("FROM ")) :]
    assert final[0] == "FROM scratch"
    assert not [line for line in final if line.startswith(("RUN", "SHELL"))]
    user = next(line.split()[1] for line in final if line.startswith("USER "))
    assert int(user.split(":")[0]) > 0
    # what the build copies is there, and is not ignored
    copied = [w for l in lines if l.startswith("COPY ") and "--from" not in l for w in l.split()[1:-1]]
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for path in copied:
        assert (REPOSITORY / path).exists(), path
        assert f"!{path}" in allowed, path


def test_the_systemd_units():
    """As systemd reads them, with a program that is there in slotway's place."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    unit = (DEPLOY / "systemd/slotway.service").read_text()
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "slotway.service"
        file.write_text(unit.replace("/usr/bin/slotway", str(BINARY)))
        sockets = shutil.copy(DEPLOY / "systemd/slotway.socket", folder)
        for drop_in in [False, True]:
            if drop_in:
                shutil.copytree(DEPLOY / "systemd/slotway.service.d", f"{file}.d")
            out = subprocess.run(
                ["systemd-analyze", "verify", "--man=no", file, sockets],
                capture_output=True,
                text=True,
            )
            assert out.returncode == 0 and not out.stderr, out.stderr


CREDENTIAL_KEYS = {
    "users": "users_file",
    "upstream-user": "upstream.user_file",
    "upstream-password": "upstream.password_file",
    "admin-token": "admin_token_file",
    "tls-key": "tls.downstream.key",
    "tls-upstream-key": "tls.upstream.key",
    "tls-admin-key": "tls.admin.key",
}


def credentials(unit):
    """The credentials that a unit or drop-in loads, commented ones included: ID to source."""
    return dict(re.findall(r"^#?LoadCredential=([\w-]+):(\S+)$", unit, re.M))


def test_credentials_are_the_same_everywhere():
    unit = (DEPLOY / "systemd/slotway.service").read_text()
    assert credentials(unit) == {name: f"slotway.{name}" for name in CREDENTIAL_KEYS}
    readme = (DEPLOY / "README.md").read_text()
    for name, key in CREDENTIAL_KEYS.items():
        path = "${CREDENTIALS_DIRECTORY}/" + name
        assert f'| `/etc/credstore/slotway.{name}` | `{key} = "{path}"` |' in readme
    drop_in = (DEPLOY / "systemd/slotway.service.d/credentials.conf").read_text()
    loaded = credentials(drop_in)
    assert loaded and loaded.keys() <= CREDENTIAL_KEYS.keys()
    variables = dict(re.findall(r"^#?Environment=(\w+)=(\S+)$", drop_in, re.M))
    wanted = {
        "SLOTWAY_" + CREDENTIAL_KEYS[name].upper().replace(".", "__"): f"%d/{name}"
        for name in loaded
    }
    assert variables == wanted


def test_slotway_finds_the_credentials(tmp_path):
    """As systemd starts it: the folder in the environment, its files for the user alone."""
    secrets = {
        "users": "user app on >app-s3cret ~* &* +@all\n",
        "upstream-user": "proxy\n",
        "upstream-password": "nodes-s3cret\n",
        "admin-token": "token-s3cret\n",
    }
    for name, text in secrets.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o400)
    config = tmp_path / "proxy.toml"
    top = [f'{CREDENTIAL_KEYS[name]} = "${{CREDENTIALS_DIRECTORY}}/{name}"' for name in secrets]
    config.write_text("\n".join(top) + "\n")
    command = [BINARY, "check", "--seeds", "127.0.0.1:1"]
    inherited = {n: v for n, v in os.environ.items() if not n.startswith("SLOTWAY_")}
    environment = inherited | {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    by_file = subprocess.run(
        [*command, "--config", config], env=environment, capture_output=True, text=True
    )
    drop_in = (DEPLOY / "systemd/slotway.service.d/credentials.conf").read_text()
    variables = re.findall(r"^Environment=(\w+)=%d/([\w-]+)$", drop_in, re.M)
    variables = {name: f"{tmp_path}/{of}" for name, of in variables if of in secrets}
    by_drop_in = subprocess.run(command, env=inherited | variables, capture_output=True, text=True)
    for out, names in [(by_file, secrets), (by_drop_in, secrets.keys() - {"upstream-user"})]:
        assert out.returncode == 0, out.stderr
        for name in names:
            assert f'"{tmp_path}/{name}"' in out.stdout, out.stdout
        assert "s3cret" not in out.stdout + out.stderr
    # Outside of a service it says what is missing, for each key.
    alone = subprocess.run(
        [*command, "--config", config], env=inherited, capture_output=True, text=True
    )
    assert alone.returncode == 2
    for name in secrets:
        assert f"{CREDENTIAL_KEYS[name]}: CREDENTIALS_DIRECTORY is not set" in alone.stderr


def test_the_sockets_are_those_of_the_default_configuration():
    lines = (DEPLOY / "systemd/slotway.socket").read_text().splitlines()
    listens = [l.split("=")[1] for l in lines if l.startswith("ListenStream=")]
    defaults = tomllib.loads((REPOSITORY / "proxy.toml").read_text())
    assert listens == [*defaults["listen"], defaults["admin"]]


# From here on things run. Each pod has an address of its own in 127.0.0.0/8, as in a cluster, so that
# ports are those of the manifests.

ADDRESSES = iter(range(2, 250))
NETWORK = f"127.{90 + os.getpid() % 100}.{os.getpid() // 100 % 250}"


def address():
    return f"{NETWORK}.{next(ADDRESSES)}"


class Place(Process):
    """One container of a pod: its folders under one of ours, its files from its ConfigMaps."""

    def __init__(self, doc, docs, ip, name="slotway", edit=lambda text: text):
        super().__init__()
        self.ip = ip
        self.template = pod(doc)
        self.container = container(doc, name)
        mounts = {m["name"]: m["mountPath"] for m in self.container["volumeMounts"]}
        self.roots = []
        for path in mounts.values():
            self.roots.append(path)
            self.path(path).mkdir(parents=True, exist_ok=True)
        for volume in self.template["spec"].get("volumes", []):
            if "configMap" in volume and volume["name"] in mounts:
                data = one(docs, "ConfigMap", volume["configMap"]["name"])["data"]
                for file, text in data.items():
                    path = self.path(f"{mounts[volume['name']]}/{file}")
                    path.write_text(edit(self.moved(text)))
            if "secret" in volume and volume["name"] in mounts:
                data = one(docs, "Secret", volume["secret"]["secretName"])["data"]
                for file, text in data.items():
                    path = self.path(f"{mounts[volume['name']]}/{file}")
                    path.write_bytes(base64.b64decode(text))
        self.env = {"PATH": os.environ["PATH"]}
        for entry in self.container.get("env", []):
            self.env[entry["name"]] = self.value(entry, docs)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def path(self, path):
        return self.dir / str(path).lstrip("/")

    def moved(self, text):
        """With the container's folders where ours are, and its addresses those of this pod."""
        for root in self.roots:
            text = text.replace(root + "/", f"{self.path(root)}/")
        text = re.sub(r'^dir /data$', f"dir {self.path('/data')}", text, flags=re.M)
        return text.replace("0.0.0.0:", f"{self.ip}:").replace('"127.0.0.1:', f'"{self.ip}:')

    def value(self, entry, docs):
        if "valueFrom" not in entry:
            return self.moved(entry.get("value", ""))
        source = entry["valueFrom"]
        if "fieldRef" in source:
            assert source["fieldRef"]["fieldPath"] == "status.podIP"
            return self.ip
        secret = one(docs, "Secret", source["secretKeyRef"]["name"])
        return base64.b64decode(secret["data"][source["secretKeyRef"]["key"]]).decode()

    def words(self, words):
        words = [re.sub(r"\$\((\w+)\)", lambda m: self.env[m[1]], w) for w in words]
        return [str(BINARY) if w == "/slotway" else self.moved(w) for w in words]

    def command(self):
        """As the container is started: what the manifest says, or the image's entry point."""
        entry = self.container.get("command") or image_entry_point()
        return self.words(entry + self.container.get("args", []))

    def start(self):
        self.run(self.command(), env=self.env)
        return self

    def run_once(self, args):
        """Another command in the same container."""
        words = self.words(image_entry_point() + args if args[0] != "/slotway" else args)
        return subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=30)

    def port(self, name):
        (port,) = [p["containerPort"] for p in self.container["ports"] if p["name"] == name]
        return port

    def probe(self, kind):
        """What the kubelet would find: (good, what was said)."""
        probe = self.container[kind]
        if "exec" in probe:
            out = self.run_once(probe["exec"]["command"])
            return out.returncode == 0, out.stdout + out.stderr
        get = probe["httpGet"]
        try:
            url = f"http://{self.ip}:{self.port(get['port'])}{get['path']}"
            with urllib.request.urlopen(url, timeout=probe["timeoutSeconds"]) as answer:
                return True, answer.read().decode()
        except urllib.error.HTTPError as error:
            return False, error.read().decode()
        except OSError as error:
            return False, str(error)

    def started(self):
        def good():
            assert self.child.poll() is None, self.said()
            return self.probe("startupProbe")[0]

        until("the startup probe succeeds", good)
        return self

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        assert self.child.wait(30) == 0, self.said()


def image_entry_point():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    return json.loads(next(l for l in lines if l.startswith("ENTRYPOINT "))[11:])


@pytest.fixture(scope="session")
def nodes(rendered):
    """The example's Redis Cluster: its StatefulSet's pods, made one by its Job."""
    docs = rendered["example"]
    doc = one(docs, "StatefulSet", "redis-cluster")
    pods = []
    try:
        for _ in range(doc["spec"]["replicas"]):
            ip = address()
            # A pod's redis-server is alone with its addresses.
            pods.append(Place(doc, docs, ip, "redis", lambda text, ip=ip: f"{text}bind {ip}\n"))
            pods[-1].start()
        job = one(docs, "Job", "redis-cluster-create")
        with Place(job, docs, "127.0.0.1", "create") as create:
            # The cluster's DNS.
            names = {f"redis-cluster-{i}.redis-cluster": p.ip for i, p in enumerate(pods)}
            getent = create.path("bin/getent")
            getent.parent.mkdir()
            cases = "".join(f"{n}) echo {ip} {n};;\n" for n, ip in names.items())
            getent.write_text(f'#!/bin/sh\ncase "$2" in\n{cases}esac\n')
            getent.chmod(0o755)
            create.env["PATH"] = f"{getent.parent}:{create.env['PATH']}"
            create.start()
            assert create.child.wait(60) == 0, create.said()
        yield pods
    finally:
        for node in pods:
            node.kill()


def seeds(nodes):
    """Replaces the seeds' names, which no DNS here knows, by addresses."""
    addresses = {f"redis-cluster-{i}.redis-cluster": n.ip for i, n in enumerate(nodes)}

    def edit(text):
        for name, ip in addresses.items():
            text = re.sub(rf'"{re.escape(name)}(\.redis)?:', f'"{ip}:', text)
        assert "redis-cluster-" not in text
        return text

    return edit


class Endpoints:
    """A Service: new connections go to the pods that are its endpoints, established ones stay."""

    def __init__(self):
        self.ready = []
        self.turn = 0

    def connection(self):
        service = self

        class Connection(redis.Connection):
            def _connect(self):
                service.turn += 1
                self.host = service.ready[service.turn % len(service.ready)]
                return super()._connect()

        return Connection


def test_a_rolling_update_of_the_shared_deployment_loses_no_request(rendered, nodes):
    docs = rendered["example"]
    deployment = one(docs, "Deployment", "slotway")
    service = Endpoints()
    (port,) = one(docs, "Service", "slotway")["spec"]["ports"]
    errors, counts, over = [], {}, threading.Event()

    def client(name):
        # no second attempts: an error is an error
        pool = redis.ConnectionPool(
            connection_class=service.connection(),
            port=port["port"],
            username="app",
            password=user_password(docs),
            retry=Retry(NoBackoff(), 0),
            socket_timeout=10,
        )
        r = redis.Redis(connection_pool=pool)
        try:
            done = 0
            while not over.is_set():
                assert r.incr(f"rolling:{name}") == done + 1
                done += 1
                if name % 4 == 0:
                    r.mset({f"{name}:{i}": done for i in range(5)})
                if name % 4 == 1:
                    time.sleep(0.003)
        except Exception as error:  # whatever it is, the test is to show it
            errors.append(f"client {name}: {error!r}")
        finally:
            counts[name] = done
            r.close()

    clients = [threading.Thread(target=client, args=(i,)) for i in range(12)]
    with contextlib.ExitStack() as running:

        def new_pod():
            place = running.enter_context(Place(deployment, docs, address(), edit=seeds(nodes)))
            place.start().started()
            assert place.probe("readinessProbe")[0] and place.probe("livenessProbe")[0]
            service.ready.append(place.ip)
            return place

        old = [new_pod(), new_pod()]
        for thread in clients:
            thread.start()
        try:
            for place in old:
                time.sleep(0.2)
                new_pod()
                # The pod is deleted: it is no endpoint any more, and preStop gives that time to be
                # known everywhere, which it is at once here.
                service.ready.remove(place.ip)
                assert list(place.container["lifecycle"]["preStop"]) == ["sleep"]
                until("somebody would notice", lambda: metric(place, "slotway_clients") > 0)
                place.stop()
            time.sleep(0.2)
        finally:
            over.set()
            for thread in clients:
                thread.join()
        assert errors == []
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(host=service.ready[0], port=port["port"]).get("rolling:0")
        r = redis.Redis(
            host=service.ready[0], port=port["port"], username="app", password=user_password(docs)
        )
        with pytest.raises(redis.exceptions.NoPermissionError):
            r.flushall()
        for name, done in counts.items():
            assert done > 0 and int(r.get(f"rolling:{name}")) == done
        r.close()


def user_password(docs):
    """That of the example's user `app`."""
    file = base64.b64decode(one(docs, "Secret", "slotway-users")["data"]["users.acl"]).decode()
    return re.search(r"^user app .*>(\S+)", file)[1]


def metric(place, name):
    """The sum of a metric's series."""
    lines = metrics(place).splitlines()
    return sum(float(l.split()[-1]) for l in lines if re.match(rf"{name}[ {{]", l))


def metrics(place):
    url = f"http://{place.ip}:{place.port('admin')}/metrics"
    return urllib.request.urlopen(url, timeout=10).read().decode()


def test_what_the_probes_say_of_a_pod_without_a_cluster(rendered):
    docs = rendered["example"]
    deployment = one(docs, "Deployment", "slotway")
    nobody = address()
    edit = lambda text: re.sub(r'"redis-cluster-\d\.redis-cluster:', f'"{nobody}:', text)
    with Place(deployment, docs, address(), edit=edit) as place:
        place.start()
        until("it lives", lambda: place.probe("livenessProbe")[0])
        good, said = place.probe("startupProbe")
        assert not good and "the topology is not known" in said
        place.stop()
        assert not place.probe("livenessProbe")[0]


@pytest.mark.parametrize("overlay", ["unix-socket", "unmodified-app"])
def test_the_sidecar(rendered, nodes, overlay):
    # the Secret of the application's namespace is not in the overlay
    docs = [*rendered[overlay], one(rendered["example"], "Secret", "redis-cluster")]
    deployment = one(docs, "Deployment", "app")
    spec = pod(deployment)["spec"]
    assert [c["name"] for c in spec["initContainers"]] == ["slotway"]
    assert container(deployment)["restartPolicy"] == "Always"
    app = container(deployment, "app")
    (url,) = [e["value"] for e in app["env"] if e["name"] == "REDIS_URL"]
    with Place(deployment, docs, address(), edit=seeds(nodes)) as place:
        # As the kubelet makes a volume for fsGroup; without root it stays ours.
        run = place.path("/run/slotway")
        group = spec["securityContext"]["fsGroup"]
        with contextlib.suppress(PermissionError):
            os.chown(run, -1, group)
        run.chmod(0o2775)
        # whoever asks has to show it; the probes find it where slotway does
        place.env |= {"SLOTWAY_ADMIN_TOKEN": "t0k", "SLOTWAY_ADMIN_TOKEN_FOR_PROBES": "true"}
        place.start().started()
        assert place.probe("livenessProbe") == (True, "ok\n")
        place.env["SLOTWAY_ADMIN_TOKEN"] = "another"
        assert not place.probe("livenessProbe")[0]
        place.env["SLOTWAY_ADMIN_TOKEN"] = "t0k"
        if overlay == "unix-socket":
            assert "/run/slotway" in {m["mountPath"] for m in app["volumeMounts"]}
            file = place.path("/run/slotway/slotway.sock")
            assert oct(file.stat().st_mode & 0o777) == "0o660"
            assert file.stat().st_gid == run.stat().st_gid
            r = redis.Redis.from_url(url.replace("/run/slotway", str(run)))
            assert metric_of_monitor(docs, place) >= 1
        else:
            r = redis.Redis.from_url(url.replace("localhost", place.ip))
        assert r.set("sidecar", overlay) and r.get("sidecar") == overlay.encode()
        # the application has ended, and with it its connections
        r.close()
        place.stop()
        assert not place.probe("livenessProbe")[0]


def metric_of_monitor(docs, place):
    (endpoint,) = one(docs, "PodMonitor")["spec"]["podMetricsEndpoints"]
    url = f"http://{place.ip}:{place.port(endpoint['port'])}{endpoint['path']}"
    request = urllib.request.Request(url, headers={"Authorization": "Bearer t0k"})
    text = urllib.request.urlopen(request, timeout=10).read().decode()
    return float(re.search(r"^slotway_workers (\S+)", text, re.M)[1])


def test_tls_for_applications_and_a_certificate_that_is_renewed(rendered, nodes, authority):
    docs = [*rendered["tls"], authority.secret("slotway-tls")]
    deployment = one(docs, "Deployment", "slotway")
    (port,) = [p for p in one(docs, "Service", "slotway")["spec"]["ports"] if p["name"] == "redis-tls"]
    cert, key = authority.sign("app")
    with Place(deployment, docs, address(), edit=seeds(nodes)) as place:
        place.start().started()
        assert place.port(port["targetPort"]) == port["port"]
        options = {
            "host": place.ip,
            "port": port["port"],
            "ssl": True,
            "ssl_ca_certs": str(authority.file),
            # it is reached by its address here, not by the name in the certificate
            "ssl_check_hostname": False,
        }
        secured = redis.Redis(**options, ssl_certfile=str(cert), ssl_keyfile=str(key))
        # the certificate says who it is: the user of that name in the Secret slotway-users
        assert secured.acl_whoami() in (b"app", "app")
        assert secured.set("tls:deploy", "1")
        with pytest.raises(redis.exceptions.NoPermissionError):
            secured.flushall()
        with pytest.raises(redis.ConnectionError):
            redis.Redis(**options, retry=Retry(NoBackoff(), 0)).ping()

        def shown():
            context = ssl.create_default_context(cafile=str(authority.file))
            context.check_hostname = False
            context.load_cert_chain(cert, key)
            with socket.create_connection((place.ip, port["port"])) as plain:
                with context.wrap_socket(plain) as wrapped:
                    return wrapped.getpeercert(binary_form=True)

        # as the kubelet does it: another folder, and a link that leads to it
        first = shown()
        mount = place.path("/etc/slotway-tls")
        renewed = mount.with_name("renewed")
        renewed.mkdir()
        for file, text in authority.secret("slotway-tls")["data"].items():
            (renewed / file).write_bytes(base64.b64decode(text))
        mount.rename(mount.with_name("before"))
        mount.symlink_to(renewed)
        until("the renewed certificate is shown", lambda: shown() != first)
        assert secured.get("tls:deploy") == b"1"
        assert metric(place, "slotway_tls_reloads_total") >= 1
        place.stop()


def test_a_changed_config_map_is_used_without_a_rollout(rendered, nodes):
    docs = rendered["example"]
    deployment = one(docs, "Deployment", "slotway")
    with Place(deployment, docs, address(), edit=seeds(nodes)) as place:
        place.start().started()
        file = place.path("/etc/slotway/proxy.toml")
        text = file.read_text()
        assert "[limits]" not in text
        file.write_text(text + "\n[limits]\nclients = 123\n")
        limit = lambda: 'slotway_limit{limit="clients"} 123' in metrics(place)
        until("the new limit is in use", limit)
        file.write_text(text + "\n[limits]\nclient = 124\n")
        invalid = 'slotway_config_reloads_total{outcome="invalid"} 1'
        until("it is refused", lambda: invalid in metrics(place))
        assert limit() and place.probe("readinessProbe")[0]
        place.stop()


def test_what_systemd_is_told(rendered, nodes):
    """READY when it serves, WATCHDOG while its workers turn, RELOADING, STOPPING."""
    unit = (DEPLOY / "systemd/slotway.service").read_text()
    (line,) = [l for l in unit.splitlines() if l.startswith("ExecStart=")]
    assert "Type=notify" in unit and "WatchdogSec=" in unit
    docs = rendered["example"]
    deployment = one(docs, "Deployment", "slotway")
    with Place(deployment, docs, address(), edit=seeds(nodes)) as place:
        heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        heard.bind(str(place.dir / "notify"))
        heard.settimeout(30)
        place.env |= {"NOTIFY_SOCKET": str(place.dir / "notify"), "WATCHDOG_USEC": "400000"}
        words = shlex.split(line.removeprefix("ExecStart="))
        assert words[0] == "/usr/bin/slotway"
        place.run(place.words(["/slotway", *words[1:]]), env=place.env)

        def next_one(wanted):
            while True:
                got = heard.recv(4096).decode()
                if wanted in got:
                    return got

        assert "STATUS=2 workers serve clients" in next_one("READY=1")
        for _ in range(3):
            next_one("WATCHDOG=1")
        (reload,) = [l for l in unit.splitlines() if l.startswith("ExecReload=")]
        assert reload == "ExecReload=/bin/kill -HUP $MAINPID"
        place.child.send_signal(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in next_one("RELOADING=1")
        next_one("READY=1")
        place.child.send_signal(signal.SIGTERM)
        next_one("STOPPING=1")
        assert place.child.wait(30) == 0
        heard.close()

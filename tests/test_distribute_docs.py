"""What docs/distribute.md and the Kubernetes example say to tasks is what tasks take."""

import configparser
import json
import pathlib
import re
import shlex

import pytest
from din import train_ps

from tf_sparse_emb.distribute import server

ROOT = pathlib.Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "distribute.md").read_text()
JOBS = {"din-ps": "ps", "din-worker": "worker", "din-chief": "chief"}


def test_a_server_takes_the_tf_config_of_the_guide(monkeypatch):
    (config,) = re.findall(r"export TF_CONFIG='(.*?)'", GUIDE, flags=re.S)
    monkeypatch.setenv("TF_CONFIG", config)
    cluster, job, index = server.task_of_environment()
    assert (job, index) == ("ps", 0)
    assert {name: len(addresses) for name, addresses in cluster.as_dict().items()} == {"chief": 1, "worker": 3, "ps": 2}


def test_the_flags_of_the_guide_are_those_of_the_command(monkeypatch):
    commands = re.findall(r"^python examples/din/train_ps\.py (.*)$", GUIDE, flags=re.M)
    assert len(commands) == 2
    for command in commands:
        train_ps.parse_arguments(shlex.split(command))


def test_the_systemd_unit_runs_the_server():
    (unit,) = re.findall(r"```ini\n(.*?)```", GUIDE, flags=re.S)
    parser = configparser.ConfigParser()
    parser.read_string(unit)
    assert parser["Service"]["ExecStart"].endswith("/python -m tf_sparse_emb.distribute.server")


# ---- examples/din/kubernetes.yaml ----


@pytest.fixture(scope="module")
def manifests():
    """The documents by (kind, name)."""
    import yaml

    documents = yaml.safe_load_all((ROOT / "examples" / "din" / "kubernetes.yaml").read_text())
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def pods(manifests):
    """Of each job: its name, the number of its pods, and what they are made from."""
    for (kind, name), document in manifests.items():
        if kind in ("StatefulSet", "Job"):
            yield JOBS[name], document["spec"].get("replicas", 1), name, document["spec"]["template"]


def test_each_pod_has_the_address_that_the_cluster_gives_it(manifests):
    cluster = json.loads(manifests["ConfigMap", "din-cluster"]["data"]["cluster"])
    assert {job for job, *_ in pods(manifests)} == set(cluster) == set(JOBS.values())
    for job, replicas, name, template in pods(manifests):
        service = manifests["Service", name]
        assert service["metadata"]["namespace"] == "din"
        assert service["spec"]["clusterIP"] == "None"  # headless: each pod has a name
        assert service["spec"]["publishNotReadyAddresses"] is True
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        (container,) = template["spec"]["containers"]
        port = container["ports"][0]["containerPort"]
        assert service["spec"]["ports"][0]["port"] == port
        if job == "chief":
            assert template["spec"]["subdomain"] == name
            hosts = [template["spec"]["hostname"]]
        else:
            assert manifests["StatefulSet", name]["spec"]["serviceName"] == name
            hosts = [f"{name}-{index}" for index in range(replicas)]
        assert cluster[job] == [f"{host}.{name}.din.svc.cluster.local:{port}" for host in hosts]


def environment(manifests, container, index):
    """What Kubernetes makes of the container's variables in the pod of that index."""
    values = {}
    for variable in container["env"]:
        source = variable.get("valueFrom")
        if source is None:
            value = variable["value"]
            for name, earlier in values.items():
                value = value.replace(f"$({name})", earlier)
        elif "configMapKeyRef" in source:
            reference = source["configMapKeyRef"]
            value = manifests["ConfigMap", reference["name"]]["data"][reference["key"]]
        else:
            assert source["fieldRef"]["fieldPath"] == "metadata.labels['apps.kubernetes.io/pod-index']"
            value = str(index)
        values[variable["name"]] = value
    return values


def test_each_pod_runs_its_task(manifests, monkeypatch):
    tasks = set()
    for job, replicas, _, template in pods(manifests):
        (container,) = template["spec"]["containers"]
        for index in range(replicas):
            config = environment(manifests, container, index)["TF_CONFIG"]
            assert json.loads(config)["task"] == {"type": job, "index": index}
            monkeypatch.setenv("TF_CONFIG", config)
            if job != "chief":
                assert container["command"] == ["python", "-m", "tf_sparse_emb.distribute.server"]
                assert server.task_of_environment()[1:] == (job, index)
            tasks.add((job, index))
    assert len(tasks) == 7


def test_the_chief_has_flags_that_the_command_takes(manifests):
    (container,) = manifests["Job", "din-chief"]["spec"]["template"]["spec"]["containers"]
    python, program, *flags = container["command"]
    assert (python, program) == ("python", "/examples/din/train_ps.py")
    options = train_ps.parse_arguments(flags)
    (mount,) = container["volumeMounts"]
    assert options.batches_dir == mount["mountPath"]
    assert options.checkpoint_dir.startswith(mount["mountPath"] + "/")


def test_what_pods_refer_to_is_there(manifests):
    labels = [template["metadata"]["labels"] for *_, template in pods(manifests)]
    policy = manifests["NetworkPolicy", "din"]["spec"]
    for selector in (policy["podSelector"], policy["ingress"][0]["from"][0]["podSelector"]):
        assert all(selector["matchLabels"].items() <= label.items() for label in labels)
    for *_, template in pods(manifests):
        for volume in template["spec"]["volumes"]:
            claim = manifests["PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]]
            assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for name in ("din-ps", "din-worker"):
        spec = manifests["StatefulSet", name]["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]

"""Checks deployment files against the schemas of the systems that read them, and prints a line for each fault.

    check.py kubernetes OPENAPI KEDA FILE...   OPENAPI: Kubernetes' published documents, one for each group and version;
                                               KEDA: the definitions of its resources
    check.py nomad API FILE                    API: Nomad's Go package of that name, from whose struct tags its parser
                                               takes the names of blocks and attributes

The last line is JSON: the command line of the job in each file, and what else the caller compares with the job.
"""

import json
import pathlib
import re
import sys

import hcl2
import jsonschema
import yaml

faults = []


def closed(schema):
    """The schema, without fields that it does not name: like the API server, which refuses or drops them."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: closed(part) for name, part in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema


def schemas(openapi, keda):
    """The schema of each kind, by group and version and name."""
    found = {}
    for path in pathlib.Path(openapi).rglob("*.json"):
        components = closed(json.loads(path.read_text()))["components"]
        for name, schema in components["schemas"].items():
            for kind in schema.get("x-kubernetes-group-version-kind", []):
                version = "/".join(filter(None, [kind["group"], kind["version"]]))
                reference = {"$ref": f"#/components/schemas/{name}", "components": components}
                found.setdefault((version, kind["kind"]), reference)
    for path in pathlib.Path(keda).glob("*.yaml"):
        definition = yaml.safe_load(path.read_text())["spec"]
        for version in definition["versions"]:
            schema = closed(version["schema"]["openAPIV3Schema"])
            # A definition leaves to Kubernetes what these are.
            schema["properties"]["metadata"] = {"type": "object"}
            found[(f"{definition['group']}/{version['name']}", definition["names"]["kind"])] = schema
    return found


def kubernetes(openapi, keda, *files):
    known = schemas(openapi, keda)
    documents = [(file, document) for file in files for document in yaml.safe_load_all(open(file)) if document]
    for file, document in documents:
        kind = (document.get("apiVersion"), document.get("kind"))
        if kind not in known:
            faults.append(f"{file}: there is no kind {kind}")
            continue
        for error in jsonschema.Draft202012Validator(known[kind]).iter_errors(document):
            faults.append(f"{file}: {kind[1]} at {error.json_path}: {error.message}")
    if not faults:
        fits_together([document for _, document in documents])
    return [container for _, document in documents if document["kind"] == "Deployment" for container in jobs(document)]


def jobs(deployment):
    pod = deployment["spec"]["template"]["spec"]
    for container in pod["containers"]:
        probes = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ["liveness", "readiness"]}
        yield {"args": container["args"], "probes": probes, "grace": pod["terminationGracePeriodSeconds"]}


def fits_together(documents):
    """What no schema says: names that refer to each other, across all files."""
    of_kind = {document["kind"]: document for document in documents}
    deployment = of_kind["Deployment"]
    template = deployment["spec"]["template"]
    pod, labels = template["spec"], template["metadata"]["labels"]

    def equal(what, one, other):
        if one != other:
            faults.append(f"{what}: {one} is not {other}")

    equal("the deployment's selector", deployment["spec"]["selector"]["matchLabels"], labels)
    equal("the budget's selector", of_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"], labels)
    policy = of_kind["NetworkPolicy"]["spec"]
    equal("the policy's selector", policy["podSelector"]["matchLabels"], labels)
    peers = [peer["podSelector"]["matchLabels"] for rule in policy["ingress"] for peer in rule.get("from", [])]
    equal("the policy's peers", peers, [labels])
    spread = pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]
    equal("the spread's selector", spread, labels)
    equal("the service account", pod["serviceAccountName"], of_kind["ServiceAccount"]["metadata"]["name"])
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    equal("the ports of --listen and --http", ports, {"group": port_of(container, "listen"), "http": port_of(container, "http")})
    equal("the port of --advertise", port_of(container, "advertise"), ports["group"])
    equal("the annotated port", template["metadata"]["annotations"]["prometheus.io/port"], str(ports["http"]))
    for probe in ["livenessProbe", "readinessProbe"]:
        equal(probe, container[probe]["httpGet"]["port"], "http")
    equal("the policy's ports", [port["port"] for rule in policy["ingress"] for port in rule.get("ports", [])], ["http"])
    volumes = sorted(volume["name"] for volume in pod["volumes"])
    equal("the volumes", volumes, sorted(mount["name"] for mount in container["volumeMounts"]))
    folders = tuple(mount["mountPath"] + "/" for mount in container["volumeMounts"])
    for option in ["cluster-key-file", "kafka-config"]:
        if not value_of(container, option).startswith(folders):
            faults.append(f"--{option} is in no volume")
    for kind in ["ScaledObject", "HorizontalPodAutoscaler"]:
        equal(f"the target of the {kind}", of_kind[kind]["spec"]["scaleTargetRef"]["name"], deployment["metadata"]["name"])


def value_of(container, option):
    return next(arg.split("=", 1)[1] for arg in container["args"] if arg.startswith(f"--{option}="))


def port_of(container, option):
    return int(value_of(container, option).rsplit(":", 1)[1])


def structs(api):
    """The fields of each struct of a Go package that have an HCL tag: name, kind and Go type."""
    found = {}
    for path in pathlib.Path(api).glob("*.go"):
        for name, body in re.findall(r"^type (\w+) struct \{\n(.*?)^\}", path.read_text(), re.M | re.S):
            fields = re.findall(r"^\s*\w+\s+(\S+)\s+`[^`]*\bhcl:\"([\w,]*)\"", body, re.M)
            found[name] = {tag.split(",")[0]: (tag.split(",")[1], kind) for kind, tag in fields if "," in tag}
    return found


def nomad(api, file):
    known = structs(api)
    job = hcl2.load(open(file))
    walk(known, "Job", unlabelled(job["job"]), f"{file}: job")
    if faults:
        return []
    found = []
    for group in labelled(unlabelled(job["job"])["group"]):
        for task in labelled(group["task"]):
            check = unlabelled(unlabelled(group["service"])["check"])
            args = [text(argument) for argument in unlabelled(task["config"])["args"]]
            grace = int(text(task["kill_timeout"]).removesuffix("s"))
            found.append({"args": args, "probes": {"readiness": text(check["path"])}, "grace": grace})
    return found


def text(value):
    return value.strip('"')


def labelled(blocks):
    return [content for block in blocks for name, content in block.items() if not name.startswith("__")]


def unlabelled(blocks):
    (block,) = blocks
    contents = labelled(blocks)
    return contents[0] if len(contents) == 1 and next(iter(block)).startswith('"') else block


def walk(known, struct, block, where):
    fields = known[struct]
    for name, value in block.items():
        if name.startswith("__"):
            continue
        if name not in fields:
            faults.append(f"{where}: there is no {name} in a {struct}")
            continue
        sort, kind = fields[name]
        kind = kind.lstrip("[]*")
        blocks = value if isinstance(value, list) and all(isinstance(one, dict) for one in value) and value else None
        if (sort == "block") != (blocks is not None):
            faults.append(f"{where}: {name} is {'a block' if sort == 'block' else 'an attribute'}")
        elif blocks is not None and kind in known:
            for inner in blocks:
                for content in labelled([inner]) if next(iter(inner)).startswith('"') else [inner]:
                    walk(known, kind, content, f"{where}.{name}")
        elif kind == "int" and not isinstance(value, int):
            faults.append(f"{where}: {name} is no whole number: {value}")
        elif kind == "time.Duration" and not re.fullmatch(r'"(\d+(ms|s|m|h))+"', str(value)):
            faults.append(f"{where}: {name} is no duration: {value}")
        elif kind == "bool" and not isinstance(value, bool):
            faults.append(f"{where}: {name} is neither true nor false: {value}")


found = {"kubernetes": kubernetes, "nomad": nomad}[sys.argv[1]](*sys.argv[2:])
print(*faults, sep="\n", end="\n" if faults else "")
if faults:
    sys.exit(1)
print(json.dumps(found))

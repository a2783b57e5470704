"""Has some of schemathesis' requests mean the job, the node and the binary that are there.

Requests with invented names alone would meet little but "there is no such job". Only for requests that fit the document: a name that is replaced
makes a request that does not fit it fit.
"""

import os

import schemathesis
from hypothesis import strategies as st

JOB, NODE, BINARY = (os.environ[name] for name in ("FLUVIAL_JOB", "FLUVIAL_NODE", "FLUVIAL_BINARY"))


def either(invented, real):
    return st.sampled_from([invented, real, real])


@schemathesis.hook
def flatmap_path_parameters(context, path_parameters):
    real = dict(path_parameters or {})
    if context.operation.path.startswith("/v1/jobs/"):
        real["name"] = JOB
    if "node" in real:
        real["node"] = NODE
    if "hash" in real:
        real["hash"] = BINARY
    return either(path_parameters, real)


@schemathesis.hook
def flatmap_body(context, body):
    if not isinstance(body, dict) or context.operation.path not in ("/v1/jobs", "/v1/jobs/{name}", "/v1/jobs/{name}/plan"):
        return st.just(body)
    # Limits and labels that a node could have are rarely invented.
    real = {name: value for name, value in body.items() if name not in ("limits", "require")}
    return either(body, {**real, "binary": BINARY})


@schemathesis.hook
def filter_query(context, query):
    # The log of a job that runs has no end.
    return (query or {}).get("follow") not in (True, "true")

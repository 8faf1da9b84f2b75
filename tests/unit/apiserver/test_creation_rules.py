"""What the server fills in and drops when pods, jobs and claims are written, and what it warns of."""

from __future__ import annotations

from typing import Any

from tests.unit.apiserver.conftest import PODS, Api, pod

MERGE = "application/merge-patch+json"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
JOBS = "/apis/batch/v1/namespaces/default/jobs"
Object = dict[str, Any]
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


async def test_a_gated_pod_says_so_at_once(api: Api) -> None:
    gated = pod("gated")
    gated["spec"]["schedulingGates"] = [{"name": "a.b/c"}]
    made = await api.ok("POST", PODS, gated)
    condition = made["status"]["conditions"][0]
    assert (condition["type"], condition["status"], condition["reason"]) == ("PodScheduled", "False", "SchedulingGated")
    assert "conditions" not in (await api.ok("POST", PODS, pod("free")))["status"]


async def test_label_keys_become_requirements(api: Api) -> None:
    body = pod("keys")
    body["metadata"]["labels"] = {"a": "1", "b": "2"}
    term = {"topologyKey": "z", "labelSelector": {}, "matchLabelKeys": ["a", "absent"], "mismatchLabelKeys": ["b"]}
    spread = {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}
    body["spec"]["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    body["spec"]["topologySpreadConstraints"] = [{**spread, "labelSelector": {}, "matchLabelKeys": ["a"]}]
    spec = (await api.ok("POST", PODS, body))["spec"]
    same, other = {"key": "a", "operator": "In", "values": ["1"]}, {"key": "b", "operator": "NotIn", "values": ["2"]}
    merged = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]["labelSelector"]
    assert merged["matchExpressions"] == [same, other]
    assert spec["topologySpreadConstraints"][0]["labelSelector"]["matchExpressions"] == [same]
    clash = pod("clash")
    clash["metadata"]["labels"] = {"a": "1"}
    clash["spec"]["topologySpreadConstraints"] = [
        {**spread, "labelSelector": {"matchLabels": {"a": "1"}}, "matchLabelKeys": ["a"]}
    ]
    refused = await api("POST", PODS, clash)
    assert refused.status == 422 and "exists in both matchLabelKeys and labelSelector" in refused.json["message"]


async def test_apparmor_annotations_become_fields(api: Api) -> None:
    body = pod("confined")
    name = body["spec"]["containers"][0]["name"]
    body["metadata"]["annotations"] = {f"{APPARMOR}{name}": "localhost/mine"}
    answer = await api("POST", PODS, body)
    profile = answer.json["spec"]["containers"][0]["securityContext"]["appArmorProfile"]
    assert profile == {"type": "Localhost", "localhostProfile": "mine"}
    assert len(answer.warnings) == 1 and "deprecated since v1.30" in answer.warnings[0]


async def test_addresses_and_observed_generations_of_a_pod(api: Api) -> None:
    await api.ok("POST", PODS, pod("p"))
    status: Object = {"podIP": "10.0.0.1", "observedGeneration": 1}
    status["conditions"] = [{"type": "Ready", "status": "False", "observedGeneration": 1}]
    made = await api.ok("PATCH", f"{PODS}/p/status", {"status": status}, type=MERGE)
    assert made["status"]["podIPs"] == [{"ip": "10.0.0.1"}]
    status = {"observedGeneration": None, "podIP": "10.0.0.2", "conditions": [{"type": "Ready", "status": "True"}]}
    kept = (await api.ok("PATCH", f"{PODS}/p/status", {"status": status}, type=MERGE))["status"]
    assert kept["observedGeneration"] == 1 and kept["conditions"][0]["observedGeneration"] == 1
    assert kept["podIPs"] == [{"ip": "10.0.0.2"}]
    refused = await api("PATCH", f"{PODS}/p/status", {"status": {"qosClass": "Guaranteed"}}, type=MERGE)
    assert refused.status == 422 and "status.qosClass: Invalid value" in refused.json["message"]


async def test_sources_of_claims(api: Api) -> None:
    def claim(name: str, **more: Object) -> Object:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **more}
        return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}

    other = {"kind": "PersistentVolumeClaim", "name": "x"}
    spec = (await api.ok("POST", CLAIMS, claim("old", dataSource=other)))["spec"]
    assert spec["dataSourceRef"] == other == spec["dataSource"]
    custom = {"apiGroup": "a.b", "kind": "Filler", "name": "x"}
    spec = (await api.ok("POST", CLAIMS, claim("new", dataSourceRef=custom)))["spec"]
    assert spec["dataSource"] == custom
    spec = (await api.ok("POST", CLAIMS, claim("dropped", dataSource=custom)))["spec"]
    assert "dataSource" not in spec and "dataSourceRef" not in spec
    spec = (await api.ok("POST", CLAIMS, claim("far", dataSourceRef={**other, "namespace": "n"})))["spec"]
    assert "dataSource" not in spec and "dataSourceRef" not in spec


async def test_labels_of_a_job_that_are_not_its_own(api: Api) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}}
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": template}}
    made = await api.ok("POST", JOBS, body)
    labels, uid = made["spec"]["template"]["metadata"]["labels"], made["metadata"]["uid"]
    assert labels["job-name"] == labels["batch.kubernetes.io/job-name"] == "j"
    assert made["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    body["metadata"] = {"name": "k"}
    body["spec"] = {"template": {**template, "metadata": {"labels": {"job-name": "mine"}}}}
    refused = await api("POST", JOBS, body)
    assert refused.status == 422 and "must be 'k'" in refused.json["message"]


async def test_warnings_reach_the_client(api: Api) -> None:
    body = pod("warned")
    body["spec"]["terminationGracePeriodSeconds"] = -1
    answer = await api("POST", PODS, body)
    text = "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
    assert answer.status == 201 and answer.warnings == [f'299 - "{text}"']

"""The official Python client against a whole server: what its users' programs do."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException

from tests.wire.whole_server import WholeServer


@pytest.fixture(scope="module")
def api(server: WholeServer) -> Iterator[client.ApiClient]:
    made = config.new_client_from_config(str(server.kubeconfig))
    yield made
    made.close()


@pytest.fixture
def namespace(api: client.ApiClient, request: pytest.FixtureRequest) -> str:
    name = "py-" + request.node.name.removeprefix("test_").replace("_", "-")
    client.CoreV1Api(api).create_namespace({"metadata": {"name": name}})
    return name


def test_typed_objects(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    made = core.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata={"name": "a"}, data={"k": "v"}))
    assert made.metadata.resource_version and made.metadata.creation_timestamp.tzinfo is not None
    made.data["k"] = "w"
    assert core.replace_namespaced_config_map("a", namespace, made).data == {"k": "w"}
    with pytest.raises(ApiException) as conflict:
        core.replace_namespaced_config_map("a", namespace, made)
    assert conflict.value.status == 409 and '"reason":"Conflict"' in conflict.value.body.replace(" ", "")
    assert core.patch_namespaced_config_map("a", namespace, {"data": {"l": "x"}}).data == {"k": "w", "l": "x"}
    assert core.patch_namespaced_config_map("a", namespace, [{"op": "remove", "path": "/data/l"}]).data == {"k": "w"}
    assert core.delete_namespaced_config_map("a", namespace, body=client.V1DeleteOptions())["status"] == "Success"
    with pytest.raises(ApiException) as missing:
        core.read_namespaced_config_map("a", namespace)
    assert missing.value.status == 404


def test_deployment_and_scale(api: client.ApiClient, namespace: str) -> None:
    apps = client.AppsV1Api(api)
    pod = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"a": "b"}),
        spec=client.V1PodSpec(containers=[client.V1Container(name="c", image="i")]),
    )
    spec = client.V1DeploymentSpec(replicas=1, selector=client.V1LabelSelector(match_labels={"a": "b"}), template=pod)
    apps.create_namespaced_deployment(namespace, client.V1Deployment(metadata=client.V1ObjectMeta(name="d"), spec=spec))
    scaled = apps.patch_namespaced_deployment_scale("d", namespace, {"spec": {"replicas": 3}})
    assert scaled.kind == "Scale" and scaled.spec.replicas == 3
    assert apps.read_namespaced_deployment("d", namespace).spec.replicas == 3
    assert apps.read_namespaced_deployment_status("d", namespace).spec.template.spec.containers[0].image == "i"


def test_watch_until_deleted(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    start = core.list_namespaced_secret(namespace).metadata.resource_version

    def change() -> None:
        core.create_namespaced_secret(namespace, {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
        core.patch_namespaced_secret("s", namespace, {"metadata": {"labels": {"x": "y"}}})
        core.delete_namespaced_secret("s", namespace)

    worker = threading.Thread(target=change)
    worker.start()
    seen = []
    for event in watch.Watch().stream(core.list_namespaced_secret, namespace, resource_version=start, timeout_seconds=20):
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            break
    worker.join()
    assert seen == [("ADDED", "s"), ("MODIFIED", "s"), ("DELETED", "s")]


def test_dynamic_client_applies(api: client.ApiClient, namespace: str) -> None:
    found = dynamic.DynamicClient(api).resources.get(api_version="apps/v1", kind="Deployment")
    body = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    }  # fmt: skip
    applied = found.server_side_apply(body=body, namespace=namespace, field_manager="py")
    assert applied.metadata.managedFields[0].manager == "py"
    again = found.server_side_apply(body=body, namespace=namespace, field_manager="py")
    assert again.metadata.resourceVersion == applied.metadata.resourceVersion
    assert [d.metadata.name for d in found.get(namespace=namespace, label_selector="!x").items] == ["d"]


def test_pages_and_yaml(api: client.ApiClient, namespace: str) -> None:
    maps = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"cm-{i}"}} for i in range(5)]
    for made in maps:
        utils.create_from_dict(api, made, namespace=namespace)
    core = client.CoreV1Api(api)
    names, token = [], None
    while True:
        page = core.list_namespaced_config_map(namespace, limit=2, _continue=token)
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
    assert [name for name in names if name.startswith("cm-")] == [f"cm-{i}" for i in range(5)]


def test_reviews_and_versions(api: client.ApiClient, namespace: str) -> None:
    attributes = client.V1ResourceAttributes(namespace=namespace, verb="create", resource="pods")
    review = client.AuthorizationV1Api(api).create_self_subject_access_review(
        client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes))
    )
    assert review.status.allowed is True
    assert client.VersionApi(api).get_code().git_version.startswith("v1.37")
    assert "apps" in [group.name for group in client.ApisApi(api).get_api_versions().groups]
    token = client.CoreV1Api(api).create_namespaced_service_account_token(
        "default", namespace, client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=["x"]))
    )
    assert token.status.token.count(".") == 2

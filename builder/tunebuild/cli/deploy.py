"""``tunebuild deploy``."""

from __future__ import annotations

from pathlib import Path

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import refuse_spec_options, set_option
from tunebuild.cli._registry import registry_options


@click.command("deploy")
@click.argument("source", metavar="SPEC|IMAGE")
@click.option(
    "--to",
    "target_name",
    type=click.Choice(["compose", "kubernetes", "kserve", "kserve-llm"]),
    required=True,
    help="What runs the container.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory to write the file to.  [default: print it]",
)
@click.option("--name", default="", help="Name of the deployment.  [default: the model's]")
@click.option("--namespace", default="", help="Kubernetes: the namespace.  [default: kubectl's]")
@click.option(
    "--replicas", type=click.IntRange(1, 1000), default=1, show_default=True, help="Kubernetes: pods."
)
@click.option(
    "--max-replicas",
    type=click.IntRange(1, 1000),
    help="Kubernetes: start more pods, up to this many, while requests wait.",
)
@click.option(
    "--prometheus",
    default="",
    metavar="URL",
    help="Kubernetes: where KEDA reads how many wait. Without it, a metrics adapter tells the autoscaler.",
)
@click.option("--monitor", is_flag=True, help="Kubernetes: add a monitor for the Prometheus operator.")
@click.option(
    "--host",
    default="",
    help="Kubernetes: host name of an Ingress. Compose: address of the open port.  [default: 127.0.0.1]",
)
@click.option("--pull-secret", default="", help="Kubernetes: Secret with the registry's login.")
@click.option(
    "--gpus",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="kserve-llm: split the model over this many GPUs (tensor parallelism).",
)
@click.option("--no-api-keys", is_flag=True, help="Let clients in without a key.")
@registry_options
@set_option
def command(
    source: str,
    target_name: str,
    output: Path | None,
    name: str,
    namespace: str,
    replicas: int,
    max_replicas: int | None,
    prometheus: str,
    monitor: bool,
    host: str,
    pull_secret: str,
    gpus: int,
    no_api_keys: bool,
    plain_http: bool,
    ca_file: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Write the manifest that runs a pushed image, by digest.

    IMAGE is a name in a registry, an archive or an OCI layout; for a SPEC, it is what was pushed of it. User,
    port, probes, drain time and memory are read from the image. Nothing is started. With kserve-llm, KServe's
    own vLLM serves the model's folder instead of the image's server.
    """
    from tunebuild.deploy.find import Place, find_endpoint, is_spec
    from tunebuild.deploy.target import Choices, check_choices, name_of
    from tunebuild.deploy.targets import TARGETS, render_manifest
    from tunebuild.image.oci.archive import explained
    from tunebuild.store.atomic import write_atomically

    if not is_spec(source):
        refuse_spec_options(source, overrides)
    endpoint, notes = find_endpoint(source, Place(plain_http, ca_file), overrides)
    choices = Choices(
        name=name or name_of(endpoint.settings.name),
        namespace=namespace,
        replicas=replicas,
        max_replicas=max_replicas or 0,
        prometheus=prometheus,
        monitor=monitor,
        api_keys=not no_api_keys,
        host=host,
        pull_secret=pull_secret,
        gpus=gpus,
    )
    check_choices(choices)
    target = TARGETS[target_name]
    manifest = target.manifest(endpoint, choices)
    file = output / target.file_name if output else Path(target.file_name)
    text = render_manifest(manifest, endpoint, choices, target.file_name)
    for note in notes:
        echo(f"note: {note}", err=True)
    if output is None:
        echo(text, nl=False)
        return
    with explained(file):
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text)
    for one in manifest.needed:
        echo(f"needs   {one}" + (f": {one.command}" if one.command else ""), err=True)
    echo(f"wrote   {file}; apply it with '{manifest.apply.format(file)}'", err=True)

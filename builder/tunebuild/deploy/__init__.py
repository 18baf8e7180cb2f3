"""Manifests that run a published image: for Compose, Kubernetes and KServe.

A :class:`~tunebuild.deploy.endpoint.Endpoint` is read from the image itself: its digest, and from its own
config and settings the user, the port, paths, health check and limits. So a manifest cannot say another thing
than the image does.
"""

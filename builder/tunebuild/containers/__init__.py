"""Container runtimes: Docker and Podman, and a process where there is neither."""

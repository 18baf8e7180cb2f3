"""The image's health check: exit 0 if the server says that it is ready.

A bare socket and no site-packages: it starts a Python every few seconds for as long as the container runs.
"""

import os
import socket


def ready(port: int) -> bool:
    """Ask ``/readyz`` on the loopback interface."""
    with socket.create_connection(("127.0.0.1", port), timeout=3) as plain:
        connection = plain
        if os.environ.get("TUNEBUILD_TLS_CERTIFICATE"):
            import ssl

            # The certificate is for the name that clients know, and this is the same machine.
            connection = ssl._create_unverified_context().wrap_socket(plain)  # noqa: S323
        connection.sendall(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        return b" 200 " in connection.recv(64)


if __name__ == "__main__":
    try:
        healthy = ready(int(os.environ.get("TUNEBUILD_PORT", "8080")))
    except OSError as error:
        raise SystemExit(f"not answering: {error}") from None
    raise SystemExit(0 if healthy else "not ready")

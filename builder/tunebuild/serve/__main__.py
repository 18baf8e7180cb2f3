"""``python -m tunebuild.serve BUNDLE``: serves a bundle directory over HTTP."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tunebuild.heavy_imports import heavy_imports
from tunebuild.serve.contract import LOG

if TYPE_CHECKING:
    from tunebuild.serve.bundle import Bundle

# Importing the libraries below takes seconds; a SIGTERM in that time must end the process at once.
if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))


def main() -> None:
    """Parse arguments and serve until a signal."""
    parser = argparse.ArgumentParser(prog="python -m tunebuild.serve", description=__doc__)
    parser.add_argument("bundle", type=Path, help="directory with bundle.json, prompt/ and model/")
    parser.add_argument("--host", default=os.environ.get("TUNEBUILD_HOST", "127.0.0.1"))
    parser.add_argument(
        "--port", type=int, default=os.environ.get("TUNEBUILD_PORT"), help="default: the bundle's"
    )
    parser.add_argument("--log", choices=("text", "json"), default=os.environ.get(LOG, "text"))
    options = parser.parse_args()

    from tunebuild.errors import TunebuildError
    from tunebuild.serve import logs
    from tunebuild.serve.bundle import Bundle

    logs.configure(options.log)
    try:
        bundle = Bundle.load(options.bundle)
    except TunebuildError as error:
        sys.exit(f"error: {error}")
    serve(options.bundle, bundle, options.host, options.port or bundle.port)


def serve(directory: Path, bundle: Bundle, host: str, port: int) -> None:
    """Run the server; returns once it has drained. A model that can never load ends it with status 1."""
    with heavy_imports():
        from tunebuild.serve.api.app import make_app
        from tunebuild.serve.connections import make_server
        from tunebuild.serve.engines.factory import make_engine
        from tunebuild.serve.service import Service

    service = Service(directory, bundle, make_engine(bundle.engine, bundle.engine_setup(directory)))

    server = make_server(make_app(service), service, host, port)

    def give_up() -> None:
        service.failed.wait()
        server.should_exit = True

    threading.Thread(target=give_up, name="give-up", daemon=True).start()
    server.run()
    if service.failed.is_set():
        sys.exit(1)


if __name__ == "__main__":
    main()

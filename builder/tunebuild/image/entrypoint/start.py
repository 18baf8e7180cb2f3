"""What the container runs: ``python3 start.py BUNDLE [options]``."""

import os
import runpy
import signal

# A process with id 1 ignores SIGTERM until it has a handler, and importing the server takes seconds.
# The server replaces this with its own handler, which drains.
signal.signal(signal.SIGTERM, lambda *_: os._exit(143))

if __name__ == "__main__":
    runpy.run_module("tunebuild.serve", run_name="__main__", alter_sys=True)

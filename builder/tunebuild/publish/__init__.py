"""Where a finished image goes: an archive, a layout, a container runtime, a registry."""

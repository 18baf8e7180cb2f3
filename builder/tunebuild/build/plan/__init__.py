"""What a build would do, and why."""

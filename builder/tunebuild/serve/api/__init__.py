"""The HTTP side: OpenAI's chat and completions API, health and metrics."""

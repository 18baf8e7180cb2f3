"""How a training is computed: settings, memory and speed, before anything is loaded."""

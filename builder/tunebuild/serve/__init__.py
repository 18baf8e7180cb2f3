"""What runs in the container. Imports the prompt contract and itself, and nothing else of ours."""

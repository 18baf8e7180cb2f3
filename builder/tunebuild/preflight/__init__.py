"""What can be refused before hours of work: one check a file."""

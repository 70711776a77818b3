"""What the Snakefile asks of DVC."""

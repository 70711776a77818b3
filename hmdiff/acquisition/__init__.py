"""Real data: what exists, what is here, and how to get the rest."""

"""What will work on this machine and what will not, each with its remedy (``hmdiff doctor``)."""

"""What is fast and what is not, against references measured in the same run. No stage."""

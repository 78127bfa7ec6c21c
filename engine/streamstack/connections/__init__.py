"""What is opened once a process and shared by all runs."""

"""Long experiments as commands: each can be stopped and goes on, and records its numbers in a file that a notebook reads."""

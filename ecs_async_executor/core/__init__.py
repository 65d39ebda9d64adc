"""Pure decisions: imports nothing of ours, and no clock, loop, thread or log."""

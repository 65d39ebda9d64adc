"""The loop thread: the lanes that launch, poll, search and stop, and the bridge to the scheduler."""

"""How fast a training step is: the same work side by side with the peers, and with what the machine allows."""

"""Networks in torch, their checkpoints, and the features of the density gate."""

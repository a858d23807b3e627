"""What computes: device, precision of the forward pass, memory that is not enough, several processes."""

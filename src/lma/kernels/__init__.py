"""What runs at every step: addresses, gather and pooling, as plain torch and as fast kernels."""

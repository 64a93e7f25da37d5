"""What is measured: small applications, peers started as their users start them, and the bare loops that bound them all."""

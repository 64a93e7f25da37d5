"""The subjects: small applications, scripts that start other servers as their users do, and the bare loops."""

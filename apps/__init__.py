"""Examples: each is an application that a person would really use."""

"""What ``verify`` compares, one kind of comparison a module."""

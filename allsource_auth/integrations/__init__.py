"""What plugs the store into other packages: one module for each, imported only when asked for."""

"""Each store by itself: what it makes of a damaged file, of a server in trouble, of wrong options."""

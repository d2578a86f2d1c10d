"""The previous minor version on stores that this version has written, and the other way round."""

"""Several processes on one file or one Allsource."""

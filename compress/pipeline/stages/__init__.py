"""The stages of a run, one file each: what makes a file, and what the file depends on."""

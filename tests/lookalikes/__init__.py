"""Networks built as other projects build theirs, small, through the whole of `compress run`."""

"""Many servers at once: which there are, what each answers, what is missing since the last time, what has been done."""

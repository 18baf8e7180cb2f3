"""From rows in files to tokenized examples."""

"""From rows in files to tokenised examples."""
